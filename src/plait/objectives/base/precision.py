"""Losses are computed in at least 32 bits."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, other types as they are.

    Logarithms and sums over thousands of classes need more than the three digits of bfloat16.
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
