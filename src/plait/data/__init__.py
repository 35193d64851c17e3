"""Sources of pairs -> samples -> batches.

`open_dataset` reads every format of `plait.data.readers` and `inspect` tells what a path holds;
`plait.data.audit.audit.audit` says what is wrong with it, `plait.data.writers.convert.convert` writes it in
another format.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.data.base.dataset import PairDataset
    from plait.data.base.sample import Sample
    from plait.data.open.open import inspect, open_dataset, stream

_LAZY = {
    "PairDataset": "plait.data.base.dataset",
    "Sample": "plait.data.base.sample",
    "inspect": "plait.data.open.open",
    "open_dataset": "plait.data.open.open",
    "stream": "plait.data.open.open",
}

__all__ = [
    "PairDataset",
    "Sample",
    "inspect",
    "open_dataset",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'plait.data' has no attribute {name!r}")
