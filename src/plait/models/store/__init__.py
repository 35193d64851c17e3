"""Models on disk: written, read, told apart."""
