"""Laws of the contrastive objectives, for any batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from plait.objectives import info_nce, sigmoid_loss

FEW = settings(max_examples=40, deadline=None)
sizes = st.integers(1, 12)
seeds = st.integers(0, 2**20)
scales = st.sampled_from([0.0, 1.0, 14.0, 100.0, 700.0])
tiles = st.tuples(st.integers(1, 14), st.integers(1, 14))


def batch(left: int, right: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit rows of both sides with ids of which at least one is shared."""
    generator = torch.Generator().manual_seed(seed)
    rows = [
        normalize(torch.randn(count, 4, dtype=torch.float64, generator=generator), dim=1)
        for count in (left, right)
    ]
    ids = [torch.randint(0, 5, (count,), generator=generator) for count in (left, right)]
    ids[1][0] = ids[0][0]
    return rows[0], rows[1], ids[0], ids[1]


def both_losses(left: Tensor, right: Tensor, scale: float, ids: tuple = (), **options) -> Tensor:
    return torch.stack(
        [
            info_nce(left, right, scale, *ids, **options),
            info_nce(left, right, scale, *ids, direction="left", **options),
            sigmoid_loss(left, right, scale, -3.0, *ids, **options),
        ]
    )


def assert_near(one: Tensor, other: Tensor) -> None:
    assert torch.allclose(one, other, rtol=1e-12, atol=1e-11)


@FEW
@given(sizes, sizes, seeds, scales, tiles)
def test_how_it_is_cut_into_tiles_does_not_matter(left, right, seed, scale, tile):
    x, y, *ids = batch(left, right, seed)
    assert_near(both_losses(x, y, scale, ids, tile=tile), both_losses(x, y, scale, ids))


@FEW
@given(sizes, sizes, seeds, scales)
def test_the_order_of_rows_does_not_matter(left, right, seed, scale):
    x, y, i, j = batch(left, right, seed)
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randperm(count, generator=generator) for count in (left, right))
    shuffled = both_losses(x[p], y[q], scale, (i[p], j[q]), tile=(3, 2))
    assert_near(shuffled, both_losses(x, y, scale, (i, j)))


@FEW
@given(sizes, sizes, seeds, scales)
def test_swapping_the_sides(left, right, seed, scale):
    x, y, i, j = batch(left, right, seed)
    here, there = info_nce(x, y, scale, i, j), info_nce(y, x, scale, j, i)
    assert_near(here, there)
    # the sigmoid loss is a sum over pairs, divided by the rows of left
    here, there = sigmoid_loss(x, y, scale, 1.0, i, j), sigmoid_loss(y, x, scale, 1.0, j, i)
    assert_near(here * left, there * right)


@FEW
@given(sizes, sizes, seeds)
def test_both_directions_are_the_mean_of_the_two(left, right, seed):
    x, y, i, j = batch(left, right, seed)
    ways = [
        info_nce(x, y, 14.0, i, j, direction="left"),
        info_nce(y, x, 14.0, j, i, direction="left"),
    ]
    assert_near(info_nce(x, y, 14.0, i, j), (ways[0] + ways[1]) / 2)


@FEW
@given(sizes, seeds, scales)
def test_no_ids_are_ids_that_are_all_different(rows, seed, scale):
    x, y, *_ = batch(rows, rows, seed)
    ids = torch.arange(rows) * 3 - 7
    assert_near(both_losses(x, y, scale), both_losses(x, y, scale, (ids, ids)))
    assert_near(both_losses(x, y, scale), both_losses(x, y, scale, (ids, None)))
    assert_near(both_losses(x, y, scale), both_losses(x, y, scale, (None, ids)))


@FEW
@given(sizes, sizes, seeds, scales)
def test_repeating_every_row_of_left_changes_no_mean(left, right, seed, scale):
    x, y, i, j = batch(left, right, seed)
    twice = (torch.cat([x, x]), y, scale, (torch.cat([i, i]), j))
    once = both_losses(x, y, scale, (i, j))[1:]  # left among right, and the sum over pairs / B
    assert_near(both_losses(*twice)[1:], once)


@FEW
@given(sizes, sizes, seeds, scales)
def test_a_loss_is_never_negative(left, right, seed, scale):
    x, y, *ids = batch(left, right, seed)
    assert (both_losses(x, y, scale, ids) > -1e-12).all()


@FEW
@given(sizes, seeds)
def test_equal_embeddings_cost_the_chance_level(rows, seed):
    x, *_ = batch(1, 1, seed)
    same = x.expand(rows, -1).contiguous()
    expected = torch.tensor(float(rows), dtype=torch.float64).log()
    assert_near(info_nce(same, same, 14.0), expected)


@pytest.mark.parametrize("scale", [14.0, 500.0])
@FEW
@given(sizes, sizes, seeds, tiles)
def test_a_small_step_changes_the_loss_by_the_gradient(scale, left, right, seed, tile):
    x, y, i, j = batch(left, right, seed)
    x.requires_grad_()
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    for loss in (
        lambda rows: info_nce(rows, y, scale, i, j, tile=tile),
        lambda rows: sigmoid_loss(rows, y, scale, -3.0, i, j, tile=tile),
    ):
        (gradient,) = torch.autograd.grad(loss(x), x)
        step = 1e-6 / scale
        with torch.no_grad():
            change = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
        expected = (gradient * direction).sum()
        assert torch.allclose(change, expected, rtol=1e-4, atol=1e-4 * scale)
