"""Tiled losses against the plain formulas, and those against open_clip and numbers by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.nn.functional import normalize

from plait.objectives import info_nce, info_nce_plain, sigmoid_loss, sigmoid_loss_plain

TILES = [(8, 8), (7, 11), (37, 5), (512, 512)]


def units(rows: int, width: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, width, dtype=torch.float64, generator=generator), dim=1)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def some_ids(rows: int, seed: int, first: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(first, first + 9, (rows,), generator=generator)


def value_and_gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = loss(*leaves)
    (1.7 * value).backward()
    return [value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_same(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-11) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < tolerance


# scale 14 takes the path with one exp, 800 the one that must not overflow
@pytest.mark.parametrize("scale", [-3.0, 14.0, 800.0])
@pytest.mark.parametrize("direction", ["both", "left"])
@pytest.mark.parametrize("tile", TILES)
def test_info_nce_in_tiles_is_the_plain_formula(scale, direction, tile):
    inputs = units(37), units(37, seed=1), number(scale)
    ours = value_and_gradients(lambda *x: info_nce(*x, direction=direction, tile=tile), *inputs)
    plain = value_and_gradients(lambda *x: info_nce_plain(*x, direction=direction), *inputs)
    assert_same(ours, plain)


@pytest.mark.parametrize("scale", [14.0, 800.0])
@pytest.mark.parametrize("direction", ["both", "left"])
@pytest.mark.parametrize("tile", TILES)
def test_info_nce_with_many_positives_and_unequal_sides(scale, direction, tile):
    inputs = units(37), units(23, seed=1), number(scale)
    ids = some_ids(37, seed=2), some_ids(23, seed=3, first=3)  # some rows without a positive
    ours = value_and_gradients(
        lambda *x: info_nce(*x, *ids, direction=direction, tile=tile), *inputs
    )
    plain = value_and_gradients(lambda *x: info_nce_plain(*x, *ids, direction=direction), *inputs)
    assert_same(ours, plain)


@pytest.mark.parametrize("scale, bias", [(10.0, -10.0), (0.0, 0.5), (117.0, -12.9), (900.0, 3.0)])
@pytest.mark.parametrize("tile", TILES)
def test_sigmoid_loss_in_tiles_is_the_plain_formula(scale, bias, tile):
    inputs = units(37), units(37, seed=1), number(scale), number(bias)
    ours = value_and_gradients(lambda *x: sigmoid_loss(*x, tile=tile), *inputs)
    assert_same(ours, value_and_gradients(sigmoid_loss_plain, *inputs))


@pytest.mark.parametrize("tile", TILES)
def test_sigmoid_loss_with_many_positives_and_unequal_sides(tile):
    inputs = units(37), units(23, seed=1), number(10.0), number(-4.0)
    ids = some_ids(37, seed=2), some_ids(23, seed=3, first=3)
    ours = value_and_gradients(lambda *x: sigmoid_loss(*x, *ids, tile=tile), *inputs)
    assert_same(ours, value_and_gradients(lambda *x: sigmoid_loss_plain(*x, *ids), *inputs))


@pytest.mark.parametrize("learned", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)])
def test_gradients_are_right_when_only_some_inputs_learn(learned):
    inputs = units(9), units(9, seed=1), number(10.0)

    def gradients(loss: Callable[..., Tensor], *extra: Tensor) -> list[Tensor]:
        leaves = [
            tensor.clone().requires_grad_(bool(one))
            for tensor, one in zip(inputs, learned, strict=True)
        ]
        loss(*leaves, *extra).backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    for ours, plain, extra in [
        (info_nce, info_nce_plain, ()),
        (sigmoid_loss, sigmoid_loss_plain, (number(-5.0),)),
    ]:
        assert_same(gradients(ours, *extra), gradients(plain, *extra))


def test_plain_info_nce_is_open_clips():
    inputs = units(12), units(12, seed=1), number(20.0)
    assert_same(
        value_and_gradients(info_nce_plain, *inputs), value_and_gradients(ClipLoss(), *inputs)
    )


def test_plain_sigmoid_loss_is_open_clips():
    inputs = units(12), units(12, seed=1), number(20.0), number(-7.0)
    assert_same(
        value_and_gradients(sigmoid_loss_plain, *inputs), value_and_gradients(SigLipLoss(), *inputs)
    )


@pytest.mark.parametrize("loss", [info_nce, info_nce_plain])
def test_info_nce_with_two_captions_by_hand(loss):
    # Two images (e1, e2); captions e1, e1 of the first and e2 of the second; scale 1.
    # Image 1 has logits (1, 1, 0), positives the first two: ln(2e + 1) - 1.
    # Image 2 has logits (0, 0, 1): ln(2 + e) - 1. Every caption: ln(e + 1) - 1.
    images = torch.eye(2, dtype=torch.float64)
    captions = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    e = math.e
    by_image = (math.log(2 * e + 1) + math.log(2 + e)) / 2 - 1
    by_caption = math.log(e + 1) - 1
    ids = torch.tensor([5, 8]), torch.tensor([5, 5, 8])
    assert float(loss(images, captions, 1.0, *ids, direction="left")) == pytest.approx(by_image)
    assert float(loss(images, captions, 1.0, *ids)) == pytest.approx((by_image + by_caption) / 2)
    # Caption 9 shows no image: one more candidate for the images, no row of the mean.
    ids = torch.tensor([5, 8]), torch.tensor([5, 9, 8])
    by_image = (math.log(2 * e + 1) + math.log(2 + e)) / 2 - 1
    assert float(loss(images, captions, 1.0, *ids)) == pytest.approx((by_image + by_caption) / 2)


@pytest.mark.parametrize("loss", [sigmoid_loss, sigmoid_loss_plain])
def test_sigmoid_loss_with_two_captions_by_hand(loss):
    # As above with scale 2 and bias -1: matching pairs have logit 1, others -1, so that every
    # one of the six pairs costs ln(1 + 1/e); divided by two images.
    images = torch.eye(2, dtype=torch.float64)
    captions = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    ids = torch.tensor([5, 8]), torch.tensor([5, 5, 8])
    expected = 3 * math.log(1 + 1 / math.e)
    assert float(loss(images, captions, 2.0, -1.0, *ids)) == pytest.approx(expected)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-6), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("scale", [14.0, 100.0])
def test_lower_precision_stays_near_float64(dtype, tolerance, scale):
    rounded = [side.to(dtype) for side in (units(40, 32), units(40, 32, seed=1))]
    exact = [side.double() for side in rounded]
    for ours, plain, extra in [
        (info_nce, info_nce_plain, (number(scale),)),
        (sigmoid_loss, sigmoid_loss_plain, (number(scale), number(-10.0))),
    ]:
        low = value_and_gradients(lambda *x, f=ours: f(*x, tile=(16, 9)), *rounded, *extra)
        high = value_and_gradients(plain, *exact, *extra)
        assert low[0].dtype == torch.float32
        assert low[1].dtype == dtype
        for one, other in zip(low, high, strict=True):
            assert (one.double() - other).abs().max() <= tolerance * other.abs().max()


def test_a_nearly_solved_batch_keeps_its_small_sigmoid_gradient_in_float32():
    # A positive at logit 12 has slope -6e-6, which 1 - sigmoid(12) would round by a hundredth.
    left = torch.eye(2).requires_grad_()
    sigmoid_loss(left, torch.eye(2), 24.0, -12.0).backward()
    slope = -1 / (1 + math.exp(12))
    assert float(left.grad[0, 0]) == pytest.approx(24 * slope / 2, rel=1e-5)
