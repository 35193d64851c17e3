"""plait braids images, text, video, speech and sensor signals into one model.

Importing it is cheap: torch and the rest load when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from plait.core.version import __version__

if TYPE_CHECKING:
    from plait.api import (
        ask,
        bench,
        compare,
        compress,
        draw,
        embed,
        evaluate,
        export,
        index,
        load,
        search,
        train,
    )
    from plait.data import open_dataset

_LAZY = {
    "ask": "plait.api",
    "bench": "plait.api",
    "caption": "plait.api",
    "compare": "plait.api",
    "compress": "plait.api",
    "draw": "plait.api",
    "export": "plait.api",
    "load": "plait.api",
    "train": "plait.api",
    "evaluate": "plait.api",
    "embed": "plait.api",
    "index": "plait.api",
    "search": "plait.api",
    "open_dataset": "plait.data",
}

__all__ = [
    "__version__",
    "ask",
    "bench",
    "caption",
    "compare",
    "compress",
    "draw",
    "embed",
    "evaluate",
    "export",
    "index",
    "load",
    "open_dataset",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    try:  # plait.objectives, plait.models ... without an import of their own
        return importlib.import_module(f"plait.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"plait.{name}":
            raise
        raise AttributeError(f"module 'plait' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
