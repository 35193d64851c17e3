"""The loop with a linear model and made-up batches: no data, no encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import Interrupted
from plait.training.loop.average import WeightAverage
from plait.training.loop.loop import LoopPlan, Position, StageLoop, trained_tensors
from plait.training.loop.optimise import build_optimiser
from plait.training.loop.task import TaskLoss
from plait.training.loop.update import Updater, UpdateRecord
from plait.training.recipe.stage import Optimiser, Schedule


class Bar:
    def advance(self, amount: int = 1, note: str = "") -> None:
        pass


class FourBatches:
    steps = 4

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        for k in range(start, self.steps):
            random = torch.Generator().manual_seed(100 * number + k)
            x = torch.randn(8, 3, generator=random)
            yield Batch([""] * 8, torch.arange(8), {"image": ModalityInput.of(features=x)})


class Squares:
    """Mean squared output, with dropout, so that random numbers matter."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def loss(self, batch: Batch) -> TaskLoss:
        total = (self.model(batch.modalities["image"].tensors["features"]) - 1).square().mean()
        return TaskLoss(total, {"squares": total.detach()})


class Notes:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.values: list[float] = []

    def updated(self, position: Position, record: UpdateRecord, factor: float) -> None:
        self.steps.append(position.run_step)
        self.losses.append(record.loss)

    def evaluated(self, position: Position, value: float, metrics: Mapping[str, Any]) -> None:
        self.values.append(value)

    def failed(self, position: Position, batch: Batch, record: UpdateRecord) -> None:
        raise AssertionError("not a number")


def make(values: list[float] | None = None, ema: float | None = None, **plan: Any) -> StageLoop:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2))
    named = list(model.named_parameters())
    groups = [
        {"params": [p for _, p in named], "names": [n for n, _ in named], "base_lr": 0.05, "lr": 0}
    ]
    updater = Updater(
        model, Squares(model), build_optimiser(groups, Optimiser()), Accelerator(cpu=True)
    )
    told = iter(values or [])
    return StageLoop(
        model,
        updater,
        FourBatches(),
        LoopPlan(**{"steps": 12, "schedule": Schedule(), **plan}),
        watcher=Notes(),
        evaluate=None if values is None else lambda: (next(told), {}),
        average=None if ema is None else WeightAverage(model, ema),
    )


def notes(loop: StageLoop) -> Notes:
    assert isinstance(loop.watcher, Notes)
    return loop.watcher


def weights(loop: StageLoop) -> list[torch.Tensor]:
    return [value.clone() for value in loop.model.state_dict().values()]


def test_it_learns_and_counts() -> None:
    loop = make(steps=40)
    loop.run(Bar())
    seen = notes(loop)
    assert seen.steps == list(range(1, 41))
    assert sum(seen.losses[-4:]) < 0.5 * sum(seen.losses[:4])
    assert (loop.position.epoch, loop.position.done) == (10, True)
    assert not loop.model.training


def test_steps_may_end_within_an_epoch() -> None:
    loop = make([1.0, 2.0], steps=6)
    loop.run(Bar())
    assert (loop.position.step, len(notes(loop).values)) == (6, 2)


@pytest.mark.parametrize("stop", range(1, 12))
def test_stopping_after_any_update_and_going_on_changes_nothing(stop: int) -> None:
    values = [1.0, 3.0, 2.0]
    whole = make(values, ema=0.9)
    whole.run(Bar())

    first = make(values, ema=0.9)
    first.stop_asked = lambda: first.position.run_step == stop
    with pytest.raises(Interrupted):
        first.run(Bar())
    second = make(values[len(notes(first).values) :], ema=0.9)
    second.model.load_state_dict(first.model.state_dict())
    second.updater.optimiser.load_state_dict(first.updater.optimiser.state_dict())
    second.position, second.best = Position(**first.position.to_json()), first.best
    assert first.average is not None
    assert second.average is not None
    second.average.restore(first.average.values, first.average.updates)
    second.run(Bar())

    assert notes(first).steps + notes(second).steps == list(range(1, 13))
    assert notes(first).losses + notes(second).losses == notes(whole).losses
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second)))


def test_the_best_weights_are_kept() -> None:
    loop, best = make([1.0, 5.0, 3.0]), make([1.0, 5.0, 3.0], steps=12)
    best.stop_asked = lambda: best.position.run_step == 8
    with pytest.raises(Interrupted):
        best.run(Bar())
    loop.run(Bar())
    assert (loop.position.best, loop.position.best_step) == (5.0, 8)
    assert all(torch.equal(a, b) for a, b in zip(weights(loop), weights(best)))
    last = make([1.0, 5.0, 3.0], keep_best=False)
    last.run(Bar())
    assert not all(torch.equal(a, b) for a, b in zip(weights(last), weights(best)))


def test_patience_begins_anew_with_every_improvement() -> None:
    loop = make([1.0, 0.5, 5.0, 3.0, 2.0, 9.0], steps=40, patience=2)
    loop.run(Bar())
    assert loop.position.step == 20
    assert loop.position.best == 5.0


def test_every_other_epoch_and_at_the_end() -> None:
    loop = make([1.0, 2.0, 3.0], steps=20, every=2)
    loop.run(Bar())
    assert len(notes(loop).values) == 3  # after epochs 2, 4 and 5


def test_an_evaluation_that_is_no_number_is_never_the_best() -> None:
    nan = float("nan")
    loop = make([nan, 1.0, nan])
    loop.run(Bar())
    assert loop.position.best == 1.0
    patient = make([nan, 1.0, nan, 0.5, 9.0], steps=40, patience=2)  # one such does not end it
    patient.run(Bar())
    assert (patient.position.step, patient.position.best) == (16, 1.0)
    hopeless = make([nan] * 9, steps=40, patience=2)
    hopeless.run(Bar())
    assert (hopeless.position.step, hopeless.position.best) == (8, None)


def test_average_of_weights_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.5)
    nn.init.constant_(model.weight, 2.0)
    start = float(average.values["weight"].item())
    average.update()  # decay min(0.5, 1/10)
    expected = 0.1 * start + 0.9 * 2
    assert average.values["weight"].item() == pytest.approx(expected)
    nn.init.constant_(model.weight, 3.0)
    average.update()  # 2/11
    expected = 2 / 11 * expected + 9 / 11 * 3
    assert average.values["weight"].item() == pytest.approx(expected)
    with average.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 3.0


def test_without_evaluation_the_average_is_the_result() -> None:
    loop = make(ema=0.5)
    loop.run(Bar())
    plain = make()
    plain.run(Bar())
    assert not torch.equal(weights(loop)[0], weights(plain)[0])


def test_what_training_changes() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    assert set(trained_tensors(model)) == {
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    }


def test_buffers_beside_a_trained_module_are_not_its_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_buffer("statistics", torch.zeros(3))
    assert set(trained_tensors(model)) == {"0.weight", "0.bias"}
    model.register_parameter("scale", nn.Parameter(torch.ones(())))
    assert set(trained_tensors(model)) == {"0.weight", "0.bias", "scale", "statistics"}


def test_a_gradient_that_is_no_number_changes_no_weight() -> None:
    loop = make()
    before = weights(loop)
    batch = next(FourBatches().epoch(0))
    broken = batch.map(lambda t: t * float("inf") if t.is_floating_point() else t)
    loop.model.eval()
    record = loop.updater(broken, 1.0)
    assert not record.finite
    assert all(torch.equal(a, b) for a, b in zip(weights(loop), before))


def test_clipping_and_the_norm_before_it() -> None:
    loop = make()
    loop.updater.clip = 0.01
    record = loop.updater(next(FourBatches().epoch(0)), 1.0)
    grads = torch.cat([p.grad.flatten() for p in loop.updater.parameters if p.grad is not None])
    assert grads.norm().item() == pytest.approx(0.01, rel=1e-4)
    assert record.grad_norm > 0.01


def test_the_average_is_what_an_evaluation_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: after update t the average keeps min(0.5, (1 + t) / (10 + t)) of itself."""
    loop = make([0.0], ema=0.5, steps=3, keep_best=False)

    def now() -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in loop.model.named_parameters()}

    average, trained, seen = now(), [], []
    inner = Updater.__call__

    def update(updater: Updater, batch: Batch, factor: float) -> UpdateRecord:
        record = inner(updater, batch, factor)
        trained.append(now())
        return record

    def evaluate() -> tuple[float, dict[str, Any]]:
        seen.append(now())
        return 0.0, {}

    monkeypatch.setattr(Updater, "__call__", update)
    loop.evaluate = evaluate
    loop.run(Bar())
    for t, weights_then in enumerate(trained):
        kept = min(0.5, (1 + t) / (10 + t))
        average = {n: kept * average[n] + (1 - kept) * weights_then[n] for n in average}
    assert (len(trained), len(seen)) == (3, 1)
    for name, value in seen[0].items():
        torch.testing.assert_close(value, average[name])
        assert not torch.equal(value, trained[-1][name]), name
    for name, value in now().items():  # and the run ends with it
        torch.testing.assert_close(value, average[name])
