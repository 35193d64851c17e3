"""Which number format a stage computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from plait.engines.choices import processor_has_bf16

Precision = Literal["auto", "float32", "bfloat16"]


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 natively; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and processor_has_bf16()


def resolve(precision: Precision, device: torch.device, *, trains_encoder: bool) -> torch.dtype:
    """The dtype of ``auto``: bfloat16 where an encoder trains and the processor computes it.

    Projections alone are too small to gain, and stay in float32.
    """
    if precision == "auto":
        precision = "bfloat16" if trains_encoder and computes_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Runs layers in ``dtype``; weights stay as they are. Nothing changes for float32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        yield


def channels_last(module: nn.Module) -> None:
    """Stores convolution weights channels last, which CPU and GPU kernels compute fastest."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
