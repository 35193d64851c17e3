"""Smaller and faster models: distillation, structured pruning, int8. See docs/compression.md."""
