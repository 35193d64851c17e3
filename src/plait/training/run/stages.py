"""The stages of a run, one after the other, and going on in the middle of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from plait.core.clock import Clock
from plait.core.progress import bar
from plait.core.signals import StopRequest, stop_on_signals
from plait.data.base.dataset import PairDataset
from plait.models.store.kinds import Model
from plait.training.build import build
from plait.training.build.init_from import start_from
from plait.training.build.updating import trains_encoder, updater_of
from plait.training.loop.average import WeightAverage
from plait.training.loop.loop import LoopPlan, Position, StageLoop
from plait.training.loop.precision import channels_last
from plait.training.recipe.schema import Recipe
from plait.training.recipe.stage import Stage
from plait.training.run.run_folder import RunFolder
from plait.training.run.saving import Saver
from plait.training.run.stage_data import StageData
from plait.training.run.watch import Recorder


class StageRunner:
    """Runs the stages of a recipe.

    Args:
        recipe: what to do.
        dataset: all pairs.
        folder: where records and checkpoints go.
        clock: counts seconds by step.
        accelerator: device and processes (`accelerate.Accelerator`).

    Raises:
        DataError: no pair to train on.
        ModelError: an encoder cannot be built.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: PairDataset,
        folder: RunFolder,
        clock: Clock,
        accelerator: Any,
    ) -> None:
        self.recipe, self.folder, self.clock, self.accelerator = recipe, folder, clock, accelerator
        self.main = bool(accelerator.is_main_process)
        self.data = StageData(recipe, dataset, clock, accelerator)
        self.notes = self.data.notes
        self.model = build.build_model(recipe, list(self.data.texts()), self.data.known.labels)
        if recipe.model.init_from is not None:
            account = start_from(self.model, **recipe.model.init_from.model_dump())
            self.notes.append(account.line())
        self.saver = Saver(recipe, self.model, folder, clock.seconds, main=self.main)
        self.model.to(accelerator.device)

    def run(self) -> Model:
        """The trained model, in evaluation mode on the CPU.

        Raises:
            Interrupted: the user asked to stop.
        """
        with self.accelerator.main_process_first():
            checkpoint = self.saver.find()
        at = Position() if checkpoint is None else Position(**checkpoint.state["position"])
        stages = len(self.recipe.stages)
        while at.stage < stages:
            build.prepare_stage(self.model, self.recipe, at.stage)
            if checkpoint is not None:  # before the loop is made: it encodes frozen towers
                self.saver.load_model(checkpoint)
            loop = self._loop(at.stage)
            loop.position = at
            if checkpoint is not None:
                self.saver.restore(loop, checkpoint)
                checkpoint = None
            self._run_loop(loop)
            build.finish_stage(self.model)
            at = Position(stage=at.stage + 1, run_step=loop.position.run_step)
            self.saver.save_between(at)
        if checkpoint is not None:  # it was stopped after its last stage
            self.saver.load_model(checkpoint)
        return self.model.to("cpu").eval()

    def _loop(self, number: int) -> StageLoop:
        """Everything of one stage, at its beginning."""
        stage, rank = self.recipe.stages[number], self.accelerator.process_index
        if trains_encoder(self.model, stage):
            channels_last(self.model)
        supply = self.data.supply(self.model, number)
        updater = updater_of(self.model, stage, self.accelerator)
        return StageLoop(
            self.model,
            updater,
            supply,
            self._plan(stage, supply.steps),
            watcher=Recorder(self.folder if self.main else None, stage.name, self.model, updater),
            evaluate=self.data.validator(self.model, stage, updater.dtype),
            save=self.saver.save,
            save_due=self.saver.due,
            average=None if stage.ema is None else WeightAverage(self.model, stage.ema),
            timer=self.clock.add,
            rank=rank,
        )

    def _plan(self, stage: Stage, steps_an_epoch: int) -> LoopPlan:
        evaluation = self.recipe.evaluation
        return LoopPlan(
            steps=stage.steps or (stage.epochs or 0) * steps_an_epoch,
            schedule=stage.schedule,
            every=evaluation.every,
            patience=evaluation.patience,
            keep_best=evaluation.best,
            seed=self.recipe.seed,
        )

    def _run_loop(self, loop: StageLoop) -> None:
        stage = self.recipe.stages[loop.position.stage]
        with (
            stop_on_signals() as request,
            bar(f"Training {stage.name}", loop.plan.steps) as running,
        ):
            loop.stop_asked = self._agreed(request)
            running.advance(loop.position.step)
            loop.run(running)

    def _agreed(self, request: StopRequest) -> Callable[[], bool]:
        """Whether any process was asked to stop, the same answer in all of them."""
        if self.accelerator.num_processes == 1:
            return request

        def any_asked() -> bool:
            asked = torch.tensor([float(request.asked)], device=self.accelerator.device)
            return bool(self.accelerator.reduce(asked, reduction="sum").item() > 0)

        return any_asked
