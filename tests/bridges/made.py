"""Small bridges and inputs that the tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plait.bridges.base import Bridge
from plait.bridges.registry import BRIDGES, build_bridge
from plait.core.batch import Encoded
from plait.encoders.base.regions import grid_boxes

KINDS = tuple(BRIDGES)
SMALL: dict[str, dict[str, Any]] = {
    "resampler": {"latents": 3, "layers": 2, "heads": 2, "head_width": 4, "frames": 4},
    "qformer": {"queries": 3, "inner": 8, "layers": 3, "heads": 2, "hidden": 12},
}
TOKENS, TOKEN_WIDTH, WIDTH = 24, 6, 10
GRID = (4, 6)


def bridge(kind: str, seed: int = 0, **options: Any) -> Bridge:
    """A small one with every parameter random, in float64 and evaluation mode."""
    torch.manual_seed(seed)
    built = build_bridge(kind, TOKEN_WIDTH, WIDTH, TOKENS, **{**SMALL.get(kind, {}), **options})
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return built.double().eval()


def encoded(seed: int = 1, rows: int = 4) -> Encoded:
    """A grid of 4 x 6 tokens with boxes; row 1 lacks its picture, row 2 some tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(rows, TOKENS, TOKEN_WIDTH, generator=generator, dtype=torch.float64)
    mask = torch.ones(rows, TOKENS, dtype=torch.bool)
    mask[1:2] = False
    mask[2:3, [0, 1, 6, 7, 23]] = False  # one whole block of 2 x 2, and one token
    boxes = grid_boxes(*GRID, like=tokens).expand(rows, -1, -1)
    return Encoded(tokens, mask, tokens.mean(dim=1), boxes)


def rows_of(part: Encoded, rows: Any) -> Encoded:
    """Some rows, or all in another order."""
    boxes = None if part.boxes is None else part.boxes[rows]
    return Encoded(part.tokens[rows], part.mask[rows], part.pooled[rows], boxes)


def spoilt(part: Encoded, value: float) -> Encoded:
    """The same with ``value`` in every masked token."""
    tokens = part.tokens.masked_fill(~part.mask[..., None], value)
    return Encoded(tokens, part.mask, part.pooled, part.boxes)


def weighed(tensor: Tensor) -> Tensor:
    """A sum with random weights, so that every gradient shows."""
    generator = torch.Generator().manual_seed(7)
    return (tensor * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)).sum()
