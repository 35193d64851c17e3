"""The matrix of logits, one tile at a time, in buffers that are used again and again.

Shape legend: B rows of left, C rows of right, D features, b x c one tile of the B x C logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

TileShape = tuple[int, int]

# Chosen with benchmarks/contrastive_loss.py --tiles: large enough that the matrix products run at
# full speed, also when other programs use the same cores; a tile of logits is then 16 MiB.
_CPU_TILE = (1024, 4096)
_GPU_TILE = (4096, 4096)


@dataclass(frozen=True)
class Tile:
    """One tile of the logits.

    Attributes:
        rows: which rows of left.
        cols: which rows of right.
        logits: (b, c) contiguous; the next tile overwrites it, so it may be changed at will.
        work: (b, c) contiguous scratch space.
    """

    rows: slice
    cols: slice
    logits: Float[Tensor, "b c"]
    work: Float[Tensor, "b c"]


def default_tile(device: torch.device) -> TileShape:
    """Rows and columns of a tile when the caller doesn't say."""
    return _CPU_TILE if device.type == "cpu" else _GPU_TILE


def logit_tiles(
    left: Float[Tensor, "B D"], right: Float[Tensor, "C D"], scale: float, shape: TileShape
) -> Iterator[Tile]:
    """Yields every tile of ``scale * left @ right.T``, row by row of tiles."""
    height, width = max(1, min(shape[0], len(left))), max(1, min(shape[1], len(right)))
    buffers = left.new_empty(2, height * width)
    for rows in blocks(len(left), height):
        for cols in blocks(len(right), width):
            size = (rows.stop - rows.start, cols.stop - cols.start)
            logits, work = (buffer[: size[0] * size[1]].view(size) for buffer in buffers)
            torch.addmm(logits, left[rows], right[cols].T, beta=0, alpha=scale, out=logits)
            yield Tile(rows, cols, logits, work)


def blocks(length: int, size: int) -> Iterator[slice]:
    """Cuts 0 to ``length`` into slices of ``size``; the last may be shorter."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def inner_product(one: Float[Tensor, "B D"], other: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Sum of the products of all elements, in float64, without a matrix of its own."""
    total = torch.zeros((), dtype=torch.float64, device=one.device)
    for rows in blocks(len(one), 1024):
        total += (one[rows] * other[rows]).sum(dtype=torch.float64)
    return total


def largest_logit(left: Tensor, right: Tensor, scale: float) -> float:
    """An upper bound of the absolute logits (Cauchy-Schwarz); |scale| for unit rows."""
    if not len(left) or not len(right):
        return 0.0
    norms = [torch.linalg.vector_norm(side, dim=1).amax() for side in (left, right)]
    return abs(scale) * float(norms[0] * norms[1])
