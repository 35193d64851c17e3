"""Encoders made of others, and the registry of their names."""
