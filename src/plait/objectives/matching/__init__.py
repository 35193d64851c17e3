"""Which pictures and texts belong together."""
