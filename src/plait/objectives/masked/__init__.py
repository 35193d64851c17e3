"""What was hidden, restored."""
