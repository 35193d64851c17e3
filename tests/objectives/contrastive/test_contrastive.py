"""What the losses refuse, and how they behave within training loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from plait import objectives
from plait.core.errors import UserError
from plait.objectives import (
    chance_level,
    info_nce,
    info_nce_plain,
    sigmoid_loss,
    sigmoid_loss_plain,
)
from plait.objectives.contrastive.positives import find_positives


def units(rows: int, width: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, width, generator=generator), dim=1)


LOSSES = [
    lambda *x: info_nce(*x[:2], 10.0, *x[2:]),
    lambda *x: info_nce_plain(*x[:2], 10.0, *x[2:]),
    lambda *x: sigmoid_loss(*x[:2], 10.0, -10.0, *x[2:]),
    lambda *x: sigmoid_loss_plain(*x[:2], 10.0, -10.0, *x[2:]),
]


def test_inputs_that_do_not_fit_are_refused_with_their_sizes():
    # Through the function that all losses call: the shape checks of the tests would come first.
    ids = torch.arange(5)
    with pytest.raises(UserError, match=r"as many columns: got \(5, 4\) and \(5, 3\)"):
        find_positives(units(5), units(5, 3), None, None)
    with pytest.raises(UserError, match="5 rows of left and 6 of right need left_ids and right_id"):
        find_positives(units(5), units(6), None, None)
    with pytest.raises(UserError, match="5 rows of left and 6 of right need"):
        find_positives(units(5), units(6), ids, None)
    with pytest.raises(UserError, match=r"right_ids must be one id a row: 6 rows, ids \(5,\)"):
        find_positives(units(5), units(6), ids, ids)
    with pytest.raises(UserError, match="an empty batch: 0 rows of left, 6 of right"):
        find_positives(units(0), units(6), ids[:0], torch.arange(6))


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_checks_its_input(loss):
    with pytest.raises(UserError, match="5 rows of left and 6 of right need"):
        loss(units(5), units(6))


def test_info_nce_without_any_positive_pair_is_refused():
    ids = torch.arange(5)
    for loss in (info_nce, info_nce_plain):
        with pytest.raises(UserError, match="no positive pair"):
            loss(units(5), units(5, seed=1), 10.0, ids, ids + 5)


def test_the_sigmoid_loss_of_negatives_alone_is_a_sum_like_any_other():
    left, right, ids = units(5), units(5, seed=1), torch.arange(5)
    expected = torch.nn.functional.softplus(10 * left @ right.T - 3).sum() / 5
    for loss in (sigmoid_loss, sigmoid_loss_plain):
        assert torch.allclose(loss(left, right, 10.0, -3.0, ids, ids + 5), expected)


def test_an_unknown_direction_is_refused():
    with pytest.raises(Exception, match="direction"):
        info_nce(units(3), units(3), 10.0, direction="right")  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[2]])
def test_second_derivatives_raise_and_name_the_way_out(loss):
    left = units(5).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(left, units(5, seed=1)), left, create_graph=True)
    assert gradient.isfinite().all()  # create_graph alone is fine, for other parts of a loss
    with pytest.raises(NotImplementedError, match=r"plait\.objectives\.\w+_plain has them"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[2]])
def test_no_graph_under_no_grad_and_the_same_value(loss):
    left, right = units(9).requires_grad_(), units(9, seed=1)
    with torch.no_grad():
        value = loss(left, right)
    assert not value.requires_grad
    assert torch.equal(value, loss(left, right).detach())


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[2]])
def test_the_graph_can_be_used_again_when_kept(loss):
    left, right = units(9).requires_grad_(), units(9, seed=1)
    value = loss(left, right)
    (once,) = torch.autograd.grad(value, left, retain_graph=True)
    (again,) = torch.autograd.grad(value, left)
    assert torch.equal(once, again)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_the_loss_in_float32(dtype):
    left = units(9).requires_grad_()
    right = units(9, seed=1)
    with torch.autocast("cpu", dtype=dtype):
        inside = info_nce(left, right, 10.0)
        inside.backward()
    gradient, left.grad = left.grad, None
    outside = info_nce(left, right, 10.0)
    outside.backward()
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert torch.equal(gradient, left.grad)


def test_inputs_and_gradients_keep_their_types_and_places():
    left = units(6).double().T.contiguous().T.requires_grad_()  # not contiguous
    right = units(6, seed=1).to(torch.bfloat16).requires_grad_()
    scale = torch.tensor(10.0, requires_grad=True)
    before = left.detach().clone(), right.detach().clone()
    value = info_nce(left, right, scale)
    value.backward()
    assert value.dtype == torch.float64
    assert (left.grad.dtype, right.grad.dtype, scale.grad.dtype) == (
        torch.float64,
        torch.bfloat16,
        torch.float32,
    )
    assert torch.equal(before[0], left.detach())
    assert torch.equal(before[1], right.detach())


@pytest.mark.parametrize("needed", list(itertools.product([False, True], repeat=4))[1:])
@pytest.mark.parametrize("name", ["info_nce", "sigmoid_loss"])
def test_any_inputs_may_ask_for_gradients_of_a_multiple(
    name: str, needed: tuple[bool, ...]
) -> None:
    """As in a sum of losses with weights; against the plain formula."""
    fast, slow = getattr(objectives, name), getattr(objectives, f"{name}_plain")
    found = []
    for loss in (fast, slow):
        values = [units(7), units(7, seed=1), torch.tensor(5.0), torch.tensor(-2.0)]
        inputs = [v.double().requires_grad_(need) for v, need in zip(values, needed, strict=True)]
        count = 3 if name == "info_nce" else 4
        if not any(needed[:count]):
            return
        (3 * loss(*inputs[:count])).backward()
        found.append([one.grad for one in inputs[:count]])
    for one, other, need in zip(*found, needed, strict=False):
        assert (one is not None) == (other is not None) == need
        if need:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ids", [None, torch.tensor([3])])
def test_one_pair_alone(ids: Tensor | None) -> None:
    """Nothing to tell it from: no loss and no gradient; the sigmoid's is of one positive."""
    left, right = (units(1, seed=n).double().requires_grad_() for n in range(2))
    loss = info_nce(left, right, 10.0, ids, ids)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert left.grad is not None and right.grad is not None
    torch.testing.assert_close(left.grad, torch.zeros_like(left), rtol=0, atol=1e-12)
    torch.testing.assert_close(right.grad, torch.zeros_like(right), rtol=0, atol=1e-12)
    logit = 10 * float(left.detach() @ right.detach().T) - 4
    expected = math.log1p(math.exp(-logit))
    assert sigmoid_loss(left, right, 10.0, -4.0, ids, ids).item() == pytest.approx(expected)


def test_features_that_are_no_numbers_give_a_loss_that_is_none():
    left = units(6)
    left[2, 1] = math.nan
    assert info_nce(left, units(6), 10.0).isnan()
    assert sigmoid_loss(left, units(6), 10.0, -10.0).isnan()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_loss_and_gradients_of_the_processor():
    for loss in (LOSSES[0], LOSSES[2]):
        found = []
        for device in ("cpu", "cuda"):
            left = units(70).double().to(device).requires_grad_()
            value = loss(left, units(70, seed=1).double().to(device))
            value.backward()
            found.append((value.detach().cpu(), left.grad.cpu()))
        for one, other in zip(*found, strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_the_chance_level_is_the_loss_of_equal_embeddings():
    same = torch.ones(7, 1, dtype=torch.float64)
    assert chance_level(7) == pytest.approx(float(info_nce(same, same, 10.0)))


def test_memory_is_linear_in_the_batch(monkeypatch):
    largest = 0
    addmm = torch.addmm

    def watched(*args, out: Tensor, **rest) -> Tensor:
        nonlocal largest
        largest = max(largest, out.numel())
        return addmm(*args, out=out, **rest)

    monkeypatch.setattr(torch, "addmm", watched)
    left = units(300).requires_grad_()
    for loss in (info_nce, lambda *x, **o: sigmoid_loss(*x, -10.0, **o)):
        loss(left, units(300, seed=1), 10.0, tile=(32, 64)).backward()
    assert largest == 32 * 64
