"""The loop: updates, precision, averages, health."""
