"""What an encoder is, and what they share."""
