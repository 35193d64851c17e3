"""Attention kinds: masks against loops, the fast form against the mask, causality."""

from __future__ import annotations

import pytest
import torch

from plait.core.errors import ModelError
from plait.models.drawing.attention import KINDS, GridAttention, grid_mask, sequence_mask


def may_look(kind: str, i: int, j: int, columns: int, kernel: int) -> bool:
    """Written from the description, cell by cell."""
    if j > i:
        return False
    (r, c), (s, d) = divmod(i, columns), divmod(j, columns)
    if kind == "row":
        return r == s
    if kind == "column":
        return c == d
    if kind == "conv":
        return r - s <= kernel // 2 and abs(c - d) <= kernel // 2
    if kind == "corner":
        return r - s < kernel and 0 <= c - d < kernel
    if kind == "raster":
        return i - j <= columns
    return True


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_cell_by_cell(kind: str, kernel: int) -> None:
    rows, columns = 5, 4
    expected = [
        [may_look(kind, i, j, columns, kernel) for j in range(rows * columns)]
        for i in range(rows * columns)
    ]
    assert grid_mask(kind, rows, columns, kernel).tolist() == expected


def test_text_is_causal_and_seen_whole_by_the_picture() -> None:
    mask = sequence_mask("row", 3, 2, 2, 3)
    assert mask[:3, :3].equal(torch.ones(3, 3).tril().bool())
    assert mask[3:, :3].all() and not mask[:3, 3:].any()


@pytest.mark.parametrize("cells", [24, 17, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_band_equals_the_mask(kind: str, cells: int) -> None:
    """Values and gradients; whole pictures and unfinished ones."""
    torch.manual_seed(0)
    layer = GridAttention(12, 2, kind, text=4, grid=(6, 4), kernel=3).double()
    assert (layer.height is None) == (kind == "full")
    x = torch.randn(2, 4 + cells, 12, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)
    results = []
    for height in (layer.height, None):
        layer.height = height
        out = layer(x)
        results.append((out, *torch.autograd.grad((out * weights).sum(), [x, layer.qkv.weight])))
    for fast, slow in zip(*results):
        torch.testing.assert_close(fast, slow, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_later_changes_nothing(kind: str) -> None:
    torch.manual_seed(0)
    layer = GridAttention(8, 2, kind, text=3, grid=(4, 4), kernel=3).double()
    x = torch.randn(1, 19, 8, dtype=torch.float64)
    for position in (0, 2, 3, 9, 17):
        changed = x.clone()
        changed[:, position + 1 :] += 1
        torch.testing.assert_close(
            layer(changed)[:, : position + 1], layer(x)[:, : position + 1], atol=1e-12, rtol=0
        )


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ModelError, match="did you mean 'column'"):
        GridAttention(8, 2, "columns", 3, (4, 4))
    with pytest.raises(ModelError, match="multiple of 3 heads"):
        GridAttention(8, 3, "row", 3, (4, 4))
    with pytest.raises(ModelError, match="odd, not 4"):
        GridAttention(8, 2, "conv", 3, (4, 4), kernel=4)
