"""Projections and pixel shuffle: values by hand, grids, messages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.bridges.made import bridge, encoded

from plait.bridges.projections import space_to_depth
from plait.bridges.registry import build_bridge
from plait.core.batch import Encoded
from plait.core.errors import ModelError
from plait.encoders.base.regions import grid_boxes


def grid(rows: int, columns: int, prefix: int = 0, boxes: bool = True) -> Encoded:
    count = prefix + rows * columns
    tokens = torch.arange(count, dtype=torch.float64)[None, :, None].expand(2, -1, 6)
    mask = torch.ones(2, count, dtype=torch.bool)
    places = grid_boxes(rows, columns, prefix, like=tokens).expand(2, -1, -1) if boxes else None
    return Encoded(tokens, mask, tokens.mean(dim=1), places)


def test_a_linear_bridge_is_a_matrix_and_skips_the_class_token() -> None:
    built = bridge("linear", skip=1)
    given = encoded()
    tokens, mask = built(given)
    layer = built.network[0]
    expected = torch.einsum("nd,wd->nw", given.tokens[0, 1:], layer.weight) + layer.bias
    torch.testing.assert_close(tokens[0], expected, rtol=0, atol=1e-12)
    assert tokens.shape[1] == mask.shape[1] == built.count(24) == 23


def test_layers_of_an_mlp() -> None:
    assert [len(bridge("mlp", layers=n).network) for n in (1, 2, 3)] == [1, 3, 5]


def test_blocks_hold_their_tokens_row_by_row() -> None:
    """A grid of 2 x 4 numbered 0 to 7 makes two blocks."""
    tokens = torch.arange(8.0)[None, :, None]
    assert space_to_depth(tokens, (2, 4), 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    assert space_to_depth(tokens, (2, 4), 1).tolist() == tokens.tolist()
    wide = torch.tensor([[[1.0, 10], [2, 20], [3, 30], [4, 40]]])
    assert space_to_depth(wide, (2, 2), 2).tolist() == [[[1, 10, 2, 20, 3, 30, 4, 40]]]


def test_a_block_is_real_where_any_of_its_tokens_is() -> None:
    tokens, mask = bridge("pixel_shuffle")(encoded())
    assert mask[2].tolist() == [False, True, True, True, True, True]
    assert not tokens[2, 0].any()


def test_boxes_tell_the_grid_and_without_them_it_is_square() -> None:
    built = build_bridge("pixel_shuffle", 6, 10, 17, skip=1).double()
    for rows, columns in ((2, 8), (8, 2), (4, 4)):
        given = grid(rows, columns, prefix=1)
        expected = space_to_depth(given.tokens[:, 1:], (rows, columns), 2)
        torch.testing.assert_close(built(given)[0], built.network(expected), rtol=0, atol=1e-12)
    square = built(grid(4, 4, prefix=1))[0]
    assert torch.equal(built(grid(4, 4, prefix=1, boxes=False))[0], square)
    assert not torch.allclose(built(grid(2, 8, prefix=1))[0], square)


def test_a_batch_without_any_picture_needs_no_grid() -> None:
    given = grid(4, 4)
    assert given.boxes is not None
    absent = replace(given, mask=~given.mask, boxes=torch.zeros_like(given.boxes))
    tokens, mask = bridge("pixel_shuffle")(absent)
    assert tokens.shape[1] == 4 and not tokens.any() and not mask.any()


def test_messages() -> None:
    built = bridge("pixel_shuffle")
    with pytest.raises(ModelError, match="makes one token of 2 x 2, and 49 tokens are no whole"):
        built.count(49)
    with pytest.raises(ModelError, match="12 tokens are none: without boxes a grid must be square"):
        built(grid(3, 4, boxes=False))
    with pytest.raises(
        ModelError, match=r"a grid of 3 x 12 tokens has no blocks of 2 x 2; .*: 1, 3"
    ):
        built(grid(3, 12))
    with pytest.raises(
        ModelError, match=r"row by row, are those of no grid.*leave them out with skip"
    ):
        built(grid(1, 3, prefix=1))
    with pytest.raises(ModelError, match="and 50 tokens are no whole number"):
        build_bridge("pixel_shuffle", 6, 10, 50)
    with pytest.raises(ModelError, match="leaves out the first 3 tokens, and the encoder gives 3"):
        build_bridge("linear", 6, 10, 3, skip=3)
    with pytest.raises(ModelError, match="bridge 'mlp': layers is 0; it must be at least 1"):
        build_bridge("mlp", 6, 10, layers=0)
    with pytest.raises(ModelError, match="factor is 0; it must be at least 1"):
        build_bridge("pixel_shuffle", 6, 10, factor=0)
