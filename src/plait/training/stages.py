"""The stages of a run, one after the other, and going on in the middle of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed

from plait.core.errors import DataError
from plait.core.progress import bar
from plait.data.dataset import PairDataset
from plait.models.fusion_model import FusionModel
from plait.models.kinds import Model
from plait.training import build
from plait.training.average import WeightAverage
from plait.training.combinations import watched_metric
from plait.training.features import augmentation, feature_change, frozen_features
from plait.training.fusion_tasks import FusionTask
from plait.training.fusion_validation import FusionValidator
from plait.training.init_from import start_from
from plait.training.loop import LoopPlan, Position, StageLoop
from plait.training.material import Material, cached_towers, material_of, sources_of, worded
from plait.training.optimise import build_optimiser, parameter_groups
from plait.training.precision import channels_last, resolve
from plait.training.rows import InOrder, RowPlan
from plait.training.run_folder import RunFolder
from plait.training.sampling import TaskSampler
from plait.training.saving import Saver
from plait.training.schema import Recipe, Stage
from plait.training.signals import StopRequest, stop_on_signals
from plait.training.supply import FeatureSource, Source, Supply
from plait.training.targets import Targets, known_of
from plait.training.update import Updater
from plait.training.validation import Validator
from plait.training.watch import Recorder

TOKENS_AT_ONCE = 64  # rows that an evaluation encodes at a time
AT_ONCE = 256  # questions that an evaluation answers at a time
FEATURES_AT_ONCE = 4096  # rows of cached features that it projects at a time


@dataclass
class Clock:
    """Seconds by step of the way; a resumed run goes on counting."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        """Counts ``seconds`` under ``name``."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def measure(self, name: str, since: float) -> None:
        """Counts the seconds since ``since`` (`time.perf_counter`) under ``name``."""
        self.add(name, time.perf_counter() - since)


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
        self.notes: list[str] = []
        self.training = self._material(dataset, "train")
        self.validation = self._material(dataset, recipe.evaluation.split)
        if not len(self.training):
            raise DataError("no pair to train on in the train split", path=recipe.data.source)
        if not len(self.validation):
            self.notes.append(
                f"The {recipe.evaluation.split} split is empty: the last weights are kept, and "
                "nothing stops early."
            )
        self.known = known_of(recipe, self.training.samples)
        texts = [text for stage in recipe.stages for text in self._of_stage(stage).texts]
        self.model = build.build_model(recipe, texts, self.known.labels)
        if recipe.model.init_from is not None:
            account = start_from(self.model, **recipe.model.init_from.model_dump())
            self.notes.append(account.line())
        self.saver = Saver(recipe, self.model, folder, clock.seconds, main=self.main)
        self.model.to(accelerator.device)

    def _material(self, dataset: PairDataset, split: str) -> Material:
        material = material_of(dataset.split(split))
        if material.left_out:
            self.notes.append(
                f"{material.left_out} samples of the {split} split lack a picture or a text and "
                "take no part."
            )
        return material

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
        recipe, stage, device = self.recipe, self.recipe.stages[number], self.accelerator.device
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        trains_encoder = any(
            stage.part(f"{t}.encoder").mode != "frozen" for t in self.model.modalities
        )
        dtype = resolve(stage.precision, device, trains_encoder=trains_encoder)
        if trains_encoder:
            channels_last(self.model)
        material = self._of_stage(stage)
        sources = self._sources(material, stage, training=True)
        plan = RowPlan(
            material.counts,
            texts=stage.texts or recipe.data.texts,
            batch_size=stage.batch_size,
            seed=recipe.seed + 7919 * number,
            slots=stage.features.slots if isinstance(sources.get("image"), FeatureSource) else 1,
            world=world,
            together=self.training.picture_numbers if stage.together else None,
        )
        targets = self._targets(self.training)
        supply = Supply(
            plan,
            sources,
            self.training.groups,
            self.training.ids,
            rank=rank,
            world=world,
            change=feature_change(stage.features, recipe.seed, number, rank),
            targets=targets,
            tasks=self._sampler(stage, targets, plan.steps, recipe.seed + 7919 * number),
        )
        group = distributed.group.WORLD if world > 1 else None
        updater = Updater(
            self.model,
            build.build_task(self.model, stage, group),
            build_optimiser(parameter_groups(self.model, stage), stage.optimiser),
            self.accelerator,
            dtype=dtype,
            clip=stage.clip,
            chunk=stage.chunk,
            after=self.model.clamp_scale,
        )
        return StageLoop(
            self.model,
            updater,
            supply,
            self._plan(stage, supply.steps),
            watcher=Recorder(self.folder if self.main else None, stage.name, self.model, updater),
            evaluate=self._validator(stage, dtype) if len(self.validation) else None,
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

    def _sources(self, material: Material, stage: Stage, *, training: bool) -> dict[str, Source]:
        features = {}
        for modality in cached_towers(self.model, stage):
            start = time.perf_counter()
            with self.accelerator.main_process_first():  # the others then find them in the cache
                features[modality] = frozen_features(
                    self.model,
                    modality,
                    material,
                    stage.features,
                    self.recipe.seed,
                    training=training,
                )
            self.clock.measure(f"{modality} features", start)
        augment = augmentation(stage.augment, self.recipe.seed) if training else None
        return sources_of(
            material,
            self.model,
            features,
            augment=augment,
            cache_pixels=self.recipe.data.cache_pixels,
            share=isinstance(self.model, FusionModel),
        )

    def _of_stage(self, stage: Stage) -> Material:
        """The training pairs, in the words of the stage."""
        return self.training if stage.text is None else worded(self.training, stage.text)

    def _targets(self, material: Material) -> Targets | None:
        return Targets(material.samples, self.known) if self.known.labels else None

    def _sampler(
        self, stage: Stage, targets: Targets | None, steps: int, seed: int
    ) -> TaskSampler | None:
        if stage.sampling == "together" or len(stage.tasks) < 2:
            return None
        counts = {} if targets is None else targets.counts()
        names = [task.objective for task in stage.tasks]
        sizes = [counts.get(name, len(self.training)) for name in names]
        temperature = stage.sampling_temperature
        return TaskSampler(
            stage.sampling, names, sizes, steps=steps, seed=seed, temperature=temperature
        )

    def _validator(
        self, stage: Stage, dtype: torch.dtype
    ) -> Callable[[], tuple[float, dict[str, Any]]]:
        validation = self.validation if stage.text is None else worded(self.validation, stage.text)
        sources = self._sources(validation, stage, training=False)
        metric = watched_metric(self.recipe, stage)
        if isinstance(self.model, FusionModel):
            return self._fusion_validator(self.model, stage, validation, sources, metric, dtype)
        cached = all(isinstance(source, FeatureSource) for source in sources.values())
        return Validator(
            self.model,
            build.contrastive_task(self.model, stage),
            sources,
            self.validation.counts,
            self.validation.groups,
            metric=metric,
            device=self.accelerator.device,
            dtype=dtype,
            chunk=FEATURES_AT_ONCE if cached else TOKENS_AT_ONCE,
        )

    def _fusion_validator(
        self,
        model: FusionModel,
        stage: Stage,
        material: Material,
        sources: dict[str, Source],
        metric: str,
        dtype: torch.dtype,
    ) -> FusionValidator:
        task = build.build_task(model, stage)
        assert isinstance(task, FusionTask)
        targets = Targets(material.samples, self.known)
        supply = Supply(
            InOrder(material.counts, AT_ONCE),
            sources,
            material.groups,
            material.ids,
            targets=targets,
        )
        device = self.accelerator.device
        return FusionValidator(
            model, task, supply, targets, metric=metric, device=device, dtype=dtype
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
