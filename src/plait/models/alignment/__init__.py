"""Towers in one space."""
