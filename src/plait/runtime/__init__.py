"""Bundles: trained models as a few files, run without torch.

    from plait.runtime import open_bundle

    bundle = open_bundle("BUNDLE")
    bundle.embed(images=["a.jpg"], texts=["a red apple"])

Needs numpy, Pillow, tokenizers and one engine, openvino or onnxruntime. `plait export` makes
bundles. Nothing here may import torch, nor any module that does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.runtime.bundle import Bundle, open_bundle

_LAZY = {"Bundle": "plait.runtime.bundle", "open_bundle": "plait.runtime.bundle"}

__all__ = ["Bundle", "open_bundle"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'plait.runtime' has no attribute {name!r}")
