"""Pairs against other pairs."""
