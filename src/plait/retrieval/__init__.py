"""Find pictures by words or by a picture: an index on disk, filters, contact sheets."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.retrieval.index.building import build_index, sync_index
    from plait.retrieval.index.index import Added, Index, open_index
    from plait.retrieval.sheet.sheet import contact_sheet

_LAZY = {
    "Added": "plait.retrieval.index.index",
    "Index": "plait.retrieval.index.index",
    "build_index": "plait.retrieval.index.building",
    "contact_sheet": "plait.retrieval.sheet.sheet",
    "open_index": "plait.retrieval.index.index",
    "sync_index": "plait.retrieval.index.building",
}

__all__ = ["Added", "Index", "build_index", "contact_sheet", "open_index", "sync_index"]


def __getattr__(name: str) -> Any:  # plait.retrieval.store.filters and the like stay free of torch
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
