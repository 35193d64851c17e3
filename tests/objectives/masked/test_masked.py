"""Losses of hidden words and regions against sums over single positions, in values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from plait.core.errors import UserError
from plait.objectives import (
    mlm_loss,
    mrc_kl_loss,
    mrc_loss,
    mrfr_loss,
    region_feature_loss,
    region_label_loss,
)

B, M, C = 3, 4, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


MASKED = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]]).bool()
SOFT = drawn(B, M, C, seed=1).softmax(-1)
LABELS = torch.tensor([[1, -100, 0, 4], [2, 2, -100, 3], [0, 1, 2, 3]])
WEIGHT = drawn(B, M, seed=2).abs() * MASKED

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "mlm": lambda x: mlm_loss(x, LABELS.where(MASKED, -100)),
    "mrfr": lambda x: mrfr_loss(x, SOFT, MASKED),
    "mrc": lambda x: mrc_loss(x, SOFT, MASKED),
    "mrc without background": lambda x: mrc_loss(x, SOFT, MASKED, background=None),
    "kl": lambda x: mrc_kl_loss(x, SOFT, MASKED),
    "kl, mean over classes": lambda x: mrc_kl_loss(x, SOFT, MASKED, mean_over_classes=True),
    "features": lambda x: region_feature_loss(3 * x, SOFT, WEIGHT),
    "labels": lambda x: region_label_loss(x, LABELS, WEIGHT),
}


def _cross_entropy(row: Tensor, label: int) -> Tensor:
    return row.exp().sum().log() - row[label]


def slow(name: str, x: Tensor) -> Tensor:
    """The same by its formula, one region after the other."""
    total, count = x.new_zeros(()), 0
    for b in range(B):
        for m in range(M):
            row, soft = x[b, m], SOFT[b, m]
            if name == "features":
                difference = 3 * row - soft
                each = torch.stack(
                    [0.5 * d * d if d.abs() < 1 else d.abs() - 0.5 for d in difference]
                )
                total, count = total + WEIGHT[b, m] * each.mean(), count + 1
            elif name == "labels":
                if LABELS[b, m] >= 0:
                    total = total + WEIGHT[b, m] * _cross_entropy(row, int(LABELS[b, m]))
                count += 1
            elif MASKED[b, m]:
                log_share = row - row.exp().sum().log()
                if name == "mlm":
                    if LABELS[b, m] < 0:
                        continue
                    value = _cross_entropy(row, int(LABELS[b, m]))
                elif name == "mrfr":
                    value = ((row - soft) ** 2).sum() / C
                elif name == "mrc":
                    value = _cross_entropy(row, 1 + int(soft[1:].argmax()))
                elif name == "mrc without background":
                    value = _cross_entropy(row, int(soft.argmax()))
                else:
                    value = sum(p * (p.log() - q) for p, q in zip(soft, log_share))
                    value = value / (C if name == "kl, mean over classes" else 1)
                total, count = total + value, count + 1
    return total / count


@pytest.mark.parametrize("name", LOSSES)
def test_by_its_formula(name: str) -> None:
    x = drawn(B, M, C, seed=3).requires_grad_()
    fast = LOSSES[name](x)
    expected = slow(name, x)
    assert fast.item() == pytest.approx(expected.item(), abs=1e-12)
    gradients = [torch.autograd.grad(loss, x)[0] for loss in (fast, expected)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_not_hidden_does_not_matter(name: str) -> None:
    x = drawn(B, M, C, seed=3)
    other = x.where(MASKED[:, :, None], torch.tensor(1e3, dtype=torch.float64))
    assert LOSSES[name](other).item() == pytest.approx(LOSSES[name](x).item(), abs=1e-12)


def test_not_a_number_in_the_padding_stays_there() -> None:
    x = drawn(B, M, C, seed=3).requires_grad_()
    spoilt = x.where(MASKED[:, :, None], torch.tensor(math.nan, dtype=torch.float64))
    for loss in (
        mlm_loss(spoilt, LABELS.where(MASKED, -100)),
        mrfr_loss(spoilt, SOFT, MASKED),
        mrc_loss(spoilt, SOFT, MASKED),
        mrc_kl_loss(spoilt, SOFT, MASKED),
        region_feature_loss(spoilt, SOFT, WEIGHT, MASKED),
        region_label_loss(spoilt, LABELS, WEIGHT, MASKED),
    ):
        assert loss.isfinite()
        assert torch.autograd.grad(loss, x, retain_graph=True)[0].isfinite().all()


def test_nothing_hidden_is_zero_with_a_graph() -> None:
    x = drawn(B, M, C).requires_grad_()
    nothing = torch.zeros(B, M, dtype=torch.bool)
    for loss in (
        mlm_loss(x, torch.full((B, M), -100)),
        mrfr_loss(x, SOFT, nothing),
        mrc_loss(x, SOFT, nothing),
        mrc_kl_loss(x, SOFT, nothing),
        region_feature_loss(x, SOFT, WEIGHT, nothing),
        region_label_loss(x, LABELS, WEIGHT, nothing),
    ):
        assert loss.item() == 0.0
        (gradient,) = torch.autograd.grad(loss, x)
        assert gradient.eq(0).all()


def test_lxmert_averages_over_all_real_regions() -> None:
    """Twice the regions, half of them without weight: half the loss; with a mask the same."""
    x, y = drawn(1, 2, C), SOFT[:1, :2]
    weight = torch.ones(1, 2, dtype=torch.float64)
    padded = [torch.cat([one, one], dim=1) for one in (x, y)]
    half = torch.cat([weight, 0 * weight], dim=1)
    alone = region_feature_loss(x, y, weight)
    assert region_feature_loss(*padded, half).item() == pytest.approx(alone.item() / 2, abs=1e-12)
    real = half.bool()
    assert region_feature_loss(*padded, half, real).item() == pytest.approx(alone.item(), abs=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    x = drawn(1, 1, 1000).bfloat16()
    found = mlm_loss(x, torch.tensor([[3]]))
    assert found.dtype == torch.float32
    expected = torch.nn.functional.cross_entropy(x[0].double(), torch.tensor([3]))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_background_must_be_a_class() -> None:
    with pytest.raises(UserError, match="background 5 is none of 5 classes"):
        mrc_loss(SOFT, SOFT, MASKED, background=5)
    with pytest.raises(UserError, match="background -1 is none of 5 classes"):
        mrc_loss(SOFT, SOFT, MASKED, background=-1)


def test_the_background_may_be_the_last_class_of_one_region() -> None:
    """Without the likeliest class 4 the target is class 2: ln 5 of equal logits, less what is 2's."""
    soft = torch.tensor([[[0.1, 0.1, 0.3, 0.0, 0.5]]], dtype=torch.float64)
    logits = torch.tensor([[[0.0, 0.0, math.log(4), 0.0, 0.0]]], dtype=torch.float64)
    one = torch.tensor([[True]])
    loss = mrc_loss(logits, soft, one, background=4)
    assert loss.item() == pytest.approx(math.log(8 / 4), abs=1e-12)
    assert mrc_loss(logits, soft, one).item() == pytest.approx(math.log(8), abs=1e-12)
