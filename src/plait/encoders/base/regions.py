"""Where the tokens of an image encoder lie: regions without a detector.

Boxes are x1, y1, x2, y2 as shares of the width and height of the pixels that the encoder is shown
(after its resize and crop), so that (0, 0) is the top left corner.

Shape legend: B samples, N tokens, h and w rows and columns of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a token that stands for the whole picture."""

MOST_PREFIX = 16
"""The most class and register tokens before a grid that `find_grid` believes in."""


def grid_boxes(
    height: int, width: int, prefix: int = 0, *, like: Tensor | None = None
) -> Float[Tensor, "N 4"]:
    """Boxes of the cells of a grid, row by row.

    Args:
        height: rows of the grid.
        width: columns of the grid.
        prefix: tokens before the grid (class, registers), which stand for the whole picture.
        like: dtype and device of the result; float32 on the processor when None.

    Returns:
        (prefix + height * width, 4).
    """
    like = torch.zeros(()) if like is None else like
    rows = torch.arange(height + 1, device=like.device, dtype=torch.float64) / height
    columns = torch.arange(width + 1, device=like.device, dtype=torch.float64) / width
    y1, x1 = torch.meshgrid(rows[:-1], columns[:-1], indexing="ij")
    y2, x2 = torch.meshgrid(rows[1:], columns[1:], indexing="ij")
    cells = torch.stack([x1, y1, x2, y2], dim=-1).flatten(0, 1)
    whole = cells.new_tensor(WHOLE).expand(prefix, 4)
    return torch.cat([whole, cells]).to(like.dtype)


def patch_of(size: Any) -> tuple[int, int] | None:
    """Height and width of a patch, where a library gives one number, two of them, or none."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Sequence) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


def sides(shape: Sequence[Any]) -> tuple[int, int]:
    """Height and width as plain numbers: while a graph is traced, sizes are tensors."""
    return int(shape[0]), int(shape[1])


def boxes_for(tokens: Float[Tensor, "B N D"], height: int, width: int) -> Float[Tensor, "B N 4"]:
    """`grid_boxes` for a batch of tokens, of which the last ``height * width`` are the grid."""
    prefix = int(tokens.shape[1]) - height * width
    return grid_boxes(height, width, prefix, like=tokens).expand(tokens.shape[0], -1, -1)


def find_grid(
    count: int, picture: tuple[int, int], patch: tuple[int, int] | None = None
) -> tuple[int, int] | None:
    """Rows and columns of the grid that ``count`` tokens form, or None where it is unclear.

    Args:
        count: tokens, those before the grid included.
        picture: height and width in pixels.
        patch: height and width of a patch in pixels, where the encoder says so: the grid is then
            as many patches as fit, unless later layers merged them.

    Without a patch, or where it does not fit, only a grid without tokens before it is found: one
    whose cells are as wide as high, as strides are the same both ways.
    """
    if patch is not None:
        height, width = picture[0] // patch[0], picture[1] // patch[1]
        if 0 <= count - height * width <= MOST_PREFIX:
            return height, width
    height = round((count * picture[0] / picture[1]) ** 0.5)
    if height and count % height == 0:
        width = count // height
        # Cells of one stride: rounding up at the borders moves a side by at most one cell.
        stride = max(picture[0] / height, picture[1] / width)
        if height - 1 < picture[0] / stride <= height and width - 1 < picture[1] / stride <= width:
            return height, width
    return None
