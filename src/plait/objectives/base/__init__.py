"""What objectives share: tiles, precision, processes."""
