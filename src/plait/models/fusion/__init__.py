"""Towers and a joint that answers."""
