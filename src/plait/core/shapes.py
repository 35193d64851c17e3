"""Shapes in annotations, for modules that must also work where jaxtyping is not installed.

Annotations are never evaluated then, as every module keeps them as strings; the names only have
to exist. What a bundle runs on (`plait.runtime`) is numpy, Pillow, tokenizers and one engine.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__all__ = ["Bool", "Float32", "Int64", "UInt8"]

if TYPE_CHECKING or find_spec("jaxtyping") is not None:
    from jaxtyping import Bool, Float32, Int64, UInt8
else:
    Bool = Float32 = Int64 = UInt8 = Any
