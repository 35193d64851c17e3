"""The loop over one stage: updates, evaluations, checkpoints, and stopping at the right moment.

Everything that the next update depends on is in `Position`, in the weights and in the optimiser;
so a run that goes on from a checkpoint makes the same updates as one that never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from plait.core.batch import Batch
from plait.core.errors import Interrupted
from plait.core.progress import Bar
from plait.training.loop.average import WeightAverage
from plait.training.loop.optimise import rate_factor
from plait.training.loop.seeding import seed_update
from plait.training.loop.update import Updater, UpdateRecord
from plait.training.recipe.stage import Schedule


@dataclass
class Position:
    """How far a stage has come.

    Attributes:
        stage: number of the stage.
        epoch, batch: the next batch to train on.
        step: updates done in this stage.
        run_step: updates done in the whole run.
        best: best value of the watched metric, None before the first evaluation.
        best_step: the ``run_step`` it was reached at.
        waited: evaluations since then.
        done: the stage has ended.
    """

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    run_step: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    done: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self)


@runtime_checkable
class BatchSupply(Protocol):
    """Batches by epoch and position, see `plait.training.batches.supply.Supply`."""

    @property
    def steps(self) -> int:
        """Batches of one epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from position ``start`` on."""


@dataclass(frozen=True)
class LoopPlan:
    """How long a stage lasts, and what it looks at.

    Attributes:
        steps: updates in all.
        schedule: of the learning rate.
        every: evaluate after so many epochs.
        patience: stop after so many evaluations without improvement; None: never.
        keep_best: end with the best weights rather than the last.
        seed: of the run.
    """

    steps: int
    schedule: Schedule
    every: int = 1
    patience: int | None = None
    keep_best: bool = True
    seed: int = 0


@runtime_checkable
class Watcher(Protocol):
    """What the loop tells of its way; a run folder and a health report listen."""

    def updated(self, position: Position, record: UpdateRecord, factor: float) -> None:
        """After every update."""

    def evaluated(self, position: Position, value: float, metrics: Mapping[str, Any]) -> None:
        """After every evaluation."""

    def failed(self, position: Position, batch: Batch, record: UpdateRecord) -> None:
        """The loss or gradient is not a number; raises what the user shall read."""


class StageLoop:
    """Runs one stage.

    Args:
        model: what trains.
        updater: makes one update of a batch.
        supply: the batches.
        plan: length, schedule, patience.
        evaluate: gives the watched value (higher is better) and all metrics; None for none.
        watcher: is told of every update and evaluation.
        save: writes a checkpoint of this moment.
        save_due: whether it is time to; asked after every update.
        stop_asked: whether the user wants to stop.
        average: moving average that is evaluated and kept in place of the weights.
        timer: is told how many seconds ``train`` and ``evaluate`` took.
        rank: of this process.
    """

    def __init__(
        self,
        model: nn.Module,
        updater: Updater,
        supply: BatchSupply,
        plan: LoopPlan,
        *,
        watcher: Watcher,
        evaluate: Callable[[], tuple[float, Mapping[str, Any]]] | None = None,
        save: Callable[[StageLoop], None] = lambda loop: None,
        save_due: Callable[[int], bool] = lambda step: False,
        stop_asked: Callable[[], bool] = lambda: False,
        average: WeightAverage | None = None,
        timer: Callable[[str, float], None] = lambda name, seconds: None,
        rank: int = 0,
    ) -> None:
        self.model, self.updater, self.supply, self.plan = model, updater, supply, plan
        self.watcher, self.evaluate = watcher, evaluate
        self.save, self.save_due, self.stop_asked = save, save_due, stop_asked
        self.average, self.timer, self.rank = average, timer, rank
        self.position = Position()
        self.best: dict[str, Tensor] | None = None

    def run(self, bar: Bar) -> None:
        """From ``position`` to the end of the stage; the model then holds the kept weights.

        Raises:
            Interrupted: the user asked to stop, and a checkpoint is written.
        """
        at = self.position
        while not at.done:
            start = time.perf_counter()
            self.model.train()
            self._epoch(bar)
            self.timer("train", time.perf_counter() - start)
            last = at.step >= self.plan.steps
            if self.evaluate is not None and (last or (at.epoch + 1) % self.plan.every == 0):
                start = time.perf_counter()
                self._evaluate()
                self.timer("evaluate", time.perf_counter() - start)
            at.epoch, at.batch = at.epoch + 1, 0
            patience = self.plan.patience
            at.done = last or (patience is not None and at.waited >= patience)
            self._save_if_due()
        self._take_kept_weights()

    def _epoch(self, bar: Bar) -> None:
        """Trains to the end of the epoch or of the stage."""
        at, plan = self.position, self.plan
        if at.step >= plan.steps:
            return
        for batch in self.supply.epoch(at.epoch, at.batch):
            seed_update(plan.seed, at.stage, at.step, self.rank)
            factor = rate_factor(at.step, plan.steps, plan.schedule)
            record = self.updater(batch.to(self.updater.accelerator.device), factor)
            if not record.finite:
                seed_update(plan.seed, at.stage, at.step, self.rank)
                self.watcher.failed(at, batch, record)
            if self.average is not None:
                self.average.update()
            at.step, at.run_step, at.batch = at.step + 1, at.run_step + 1, at.batch + 1
            self.watcher.updated(at, record, factor)
            bar.advance(note=f"loss {record.loss:.3f}" + self._best_note())
            if at.step >= plan.steps:
                return
            self._save_if_due()

    def _best_note(self) -> str:
        return "" if self.position.best is None else f", best {self.position.best:.1f}"

    def _evaluate(self) -> None:
        assert self.evaluate is not None
        at = self.position
        if self.average is not None:
            self.average.exchange()
        self.model.eval()
        value, metrics = self.evaluate()
        better = not math.isnan(value) and (at.best is None or value > at.best)
        if better:
            at.best, at.best_step, at.waited = value, at.run_step, 0
            if self.plan.keep_best:
                self.best = {n: t.detach().clone() for n, t in trained_tensors(self.model).items()}
        else:
            at.waited += 1
        if self.average is not None:
            self.average.exchange()
        self.model.train()
        self.watcher.evaluated(at, value, metrics)

    def _save_if_due(self) -> None:
        stop = self.stop_asked()
        if stop or self.save_due(self.position.run_step):
            self.save(self)
        if stop:
            raise Interrupted(f"stopped after {self.position.run_step} updates")

    @torch.no_grad()
    def _take_kept_weights(self) -> None:
        if self.best is not None:
            own = trained_tensors(self.model)
            for name, value in self.best.items():
                own[name].copy_(value)
        elif self.average is not None:
            self.average.exchange()
        self.model.eval()


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: trainable parameters, and buffers of modules that have some."""
    found: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for prefix, module in model.named_modules():
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            for name, buffer in module.named_buffers(recurse=False):
                found[f"{prefix}.{name}" if prefix else name] = buffer
    return found
