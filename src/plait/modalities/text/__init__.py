"""Texts: scripts, tokens, glosses."""
