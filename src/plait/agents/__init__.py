"""Trained models as tools of a language model: a server of the Model Context Protocol, and an agent."""

from __future__ import annotations

from importlib.util import find_spec

from plait.core.errors import MissingExtra


def require_extra(purpose: str) -> None:
    """Raises `MissingExtra` when the libraries of the extra ``agent`` are not installed."""
    for library in ("mcp", "openai", "jsonschema"):
        if find_spec(library) is None:
            raise MissingExtra(library, "agent", purpose)
