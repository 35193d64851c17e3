"""Each alarm is provoked, and a healthy run raises none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from plait.core.batch import Batch, ModalityInput
from plait.objectives import info_nce_plain
from plait.training.loop.health import examine
from plait.training.loop.nan_origin import find_origin
from plait.training.loop.task import TaskLoss
from plait.training.loop.update import Updater, info_nce_floor

Record = dict[str, Any]


def run(
    update: Callable[[int], Record] = lambda k: {}, check: Callable[[int], Record] = lambda k: {}
) -> list[Record]:
    """Records of 40 healthy updates and 8 evaluations, with changes by number."""
    records: list[Record] = []
    for k in range(40):
        loss = 4.0 * math.exp(-k / 20)
        records.append(
            {
                "kind": "update",
                "stage": "only",
                "epoch": k // 5,
                "step": k + 1,
                "run_step": k + 1,
                "rows": 64,
                "loss": loss,
                "parts": {"info_nce image-text": loss},
                "grad_norm": 1.0 + 0.1 * (k % 3),
                "part_norms": {"image.projection": 0.7, "text.projection": 0.6, "temperature": 0.1},
                "scale": 20.0 + k,
                "max_scale": 100.0,
            }
            | update(k)
        )
        if k % 5 == 4:
            number = k // 5
            records.append(
                {
                    "kind": "validation",
                    "stage": "only",
                    "epoch": number,
                    "step": k + 1,
                    "run_step": k + 1,
                    "loss": 3.0 - 0.1 * number,
                    "train_loss": 3.0 - 0.2 * number,
                    "rank": {"image": 100.0 - number, "text": 90.0},
                }
                | check(number)
            )
    return records


def kinds(records: list[Record]) -> list[str]:
    return [finding.kind for finding in examine(records)]


def test_a_healthy_run_raises_no_alarm() -> None:
    assert examine(run()) == []


def test_loss_at_chance() -> None:
    found = examine(run(lambda k: {"parts": {"info_nce image-text": 4.13}}))
    assert [finding.kind for finding in found] == ["near-chance"]
    assert "ln(64) = 4.16" in found[0].message
    assert "learning rate" in found[0].advice
    assert kinds(run(lambda k: {"parts": {"info_nce image-text": 3.9}})) == []  # 0.94 of ln 64
    assert kinds(run(lambda k: {"parts": {"sigmoid image-text": 4.13}})) == []


def test_scale_at_its_clamp() -> None:
    found = examine(run(lambda k: {"scale": 100.0 if k >= 30 else 50.0}))
    assert [finding.kind for finding in found] == ["clamped-scale"]
    assert "25% of the updates" in found[0].message
    assert kinds(run(lambda k: {"scale": 100.0 if k >= 36 else 50.0})) == []


def test_falling_rank() -> None:
    found = examine(run(check=lambda k: {"rank": {"image": 100.0 / (k + 1), "text": 90.0}}))
    assert [finding.kind for finding in found] == ["falling-rank"]
    assert "rank of the image embeddings fell from 100 to 12" in found[0].message


def test_overfitting() -> None:
    found = examine(run(check=lambda k: {"loss": 2.0 + abs(k - 2) * 0.2}))
    assert [finding.kind for finding in found] == ["overfitting"]
    assert "from 2.00 (epoch 2) to 3.00" in found[0].message
    both = run(check=lambda k: {"loss": 2.0 + abs(k - 2) * 0.2, "train_loss": 2.0 + k})
    assert kinds(both) == []  # everything gets worse: no over-fitting


def test_gradients_that_jump() -> None:
    found = examine(run(lambda k: {"grad_norm": 200.0} if k == 17 else {}))
    assert [finding.kind for finding in found] == ["gradient-spikes"]
    assert "jumped to 200.0 at update 18" in found[0].message


def test_gradients_that_vanish() -> None:
    assert kinds(run(lambda k: {"grad_norm": 1e-8})) == ["vanishing-gradient"]


def test_a_dead_modality() -> None:
    norms = {
        "image.projection": 1.0,
        "text.projection": 0.001,
        "text.encoder": 0.0,
        "temperature": 9.0,
    }
    found = examine(run(lambda k: {"part_norms": norms}))
    assert [finding.kind for finding in found] == ["dead-modality"]
    assert "the text tower got 0.10% of the gradient" in found[0].message
    assert kinds(run(lambda k: {"part_norms": {"image.projection": 1.0}})) == []  # the only one


def test_short_runs_are_not_judged() -> None:
    assert kinds(run(lambda k: {"parts": {"info_nce image-text": 4.2}})[:5]) == []


class Broken(nn.Module):
    """Three modules, of which one can be told to give NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(2, 2), nn.Softplus(), nn.Linear(2, 1)
        self.scale = nn.Parameter(torch.ones(()))

    def loss(self, batch: Batch) -> TaskLoss:
        rows = self.third(self.second(self.first(batch.modalities["image"].tensors["features"])))
        total = (rows.square() * self.scale).mean()
        return TaskLoss(total, {})


def origin(break_it: Callable[[Broken, torch.Tensor], object]) -> str:
    torch.manual_seed(0)
    model, x = Broken(), torch.rand(4, 2)
    break_it(model, x)
    batch = Batch(list("abcd"), torch.arange(4), {"image": ModalityInput.of(features=x)})
    updater = Updater(model, model, torch.optim.SGD(model.parameters(), 0.1), Accelerator(cpu=True))
    return find_origin(model, updater, batch)


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda model, x: x[2].fill_(math.nan), "features of the image inputs .*first samples: c"),
        (lambda model, x: model.first.weight.data.fill_(math.nan), "the weights first.weight"),
        (lambda model, x: model.first.weight.data.fill_(3.4e38), r"the output of first \(Linear\)"),
        (lambda model, x: model.third.weight.data.fill_(3e38), r"the output of third \(Linear\)"),
        (lambda model, x: model.third.weight.data.fill_(1e30), "the loss itself"),
        (lambda model, x: None, "nothing this time"),
    ],
)
def test_where_it_broke(break_it: Callable[[Broken, torch.Tensor], object], told: str) -> None:
    assert re.search(told, origin(break_it))


def test_a_gradient_that_breaks_alone() -> None:
    def root(model: Broken, x: torch.Tensor) -> None:
        # sqrt has a finite value and an infinite slope at 0.
        model.third = nn.Sequential(nn.Linear(2, 1), Root())  # type: ignore[assignment]
        nn.init.zeros_(model.third[0].weight)
        nn.init.zeros_(model.third[0].bias)

    assert "the gradient of" in origin(root)


class Root(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sqrt()


def test_texts_that_read_the_same_leave_a_floor() -> None:
    def at(loss: float, floor: float) -> list[str]:
        part = {"info_nce image-text": loss}
        return kinds(run(lambda k: {"parts": part, "floor": floor}))

    assert at(2.1, 2.0) == ["loss-floor"]  # ln 64 is 4.16
    assert at(2.3, 2.0) == []
    assert at(4.1, 2.0) == ["near-chance"]  # 0.97 of the way from floor to chance
    assert at(3.9, 2.0) == []
    assert at(4.1, 4.0) == ["equal-texts"]


def test_floor_is_the_loss_of_perfect_rows() -> None:
    ids = torch.tensor([3, 3, 5, 3, 9, 9])
    rows = torch.nn.functional.one_hot(ids, 10).double()
    perfect = info_nce_plain(rows, rows, 1000.0, ids, ids)
    assert info_nce_floor(ids) == pytest.approx(float(perfect))
    assert info_nce_floor(torch.arange(5)) == 0
