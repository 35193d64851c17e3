"""Encoders that start from nothing."""
