"""What was found or drawn, as a picture."""
