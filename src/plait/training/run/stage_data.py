"""What a stage trains on and is measured by: batches of the training split, and a validator."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from plait.core.clock import Clock
from plait.core.errors import DataError
from plait.core.modality import IMAGE, TEXT
from plait.data.base.dataset import PairDataset
from plait.data.base.equal_texts import text_numbers
from plait.data.base.notes import with_notes
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.alignment.alignment import AlignmentModel
from plait.models.bridged.model import BridgedModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.fusion.model import FusionModel
from plait.models.store.kinds import Model
from plait.training.batches.features import augmentation, feature_change, frozen_features
from plait.training.batches.material import (
    Material,
    cached_towers,
    in_words,
    material_of,
    sources_of,
    thinned,
)
from plait.training.batches.rows import InOrder, RowPlan
from plait.training.batches.sampling import TaskSampler
from plait.training.batches.supply import (
    Alike,
    FeatureSource,
    PixelSource,
    Source,
    Supply,
    TokenSource,
)
from plait.training.batches.supply import Targets as TargetsOfRows
from plait.training.build import build
from plait.training.recipe.combinations import watched_metric
from plait.training.recipe.schema import Recipe
from plait.training.recipe.stage import Stage
from plait.training.run.preflight import preflight
from plait.training.tasks.distilling import distil_of, load_teacher, teacher_rows
from plait.training.tasks.drawing import (
    DrawValidator,
    DvaeValidator,
    drawing_sources,
    with_progress,
)
from plait.training.tasks.episodes import EpisodePictures, EpisodeTexts, Shots
from plait.training.tasks.fusion_tasks import FusionTask
from plait.training.tasks.fusion_validation import FusionValidator
from plait.training.tasks.qformer_task import (
    QFORMER,
    QFormerValidator,
    WordSource,
    parts_of_first_stage,
)
from plait.training.tasks.targets import Targets, known_of
from plait.training.tasks.unknown_answers import Unknown
from plait.training.tasks.validation import Validator
from plait.training.tasks.wording import Wording, longest_target, pairs_of, said
from plait.training.tasks.writing import ExampleSource, WritingValidator

TOKENS_AT_ONCE = 64  # rows that an evaluation encodes at a time
QUESTIONS_AT_ONCE = 256  # rows that a fusion model answers at a time
FEATURES_AT_ONCE = 4096  # rows of cached features that an evaluation projects at a time

CONTRASTING = frozenset({"info_nce", "sigmoid", "match", "wra", QFORMER})
"""Objectives that tell pairs apart, and so need two of them."""

Evaluate = Callable[[], tuple[float, dict[str, Any]]]


class StageData:
    """The training and the validation split, as each stage wants them.

    Args:
        recipe: of the run.
        dataset: all samples.
        clock: counts the seconds of frozen towers.
        accelerator: device and processes (`accelerate.Accelerator`).

    Attributes:
        training, validation: their samples that have all they need.
        known: the answers and classes of the training split.
        notes: for the report.

    Raises:
        DataError: no pair to train on, or none with what the tasks need.
    """

    def __init__(
        self, recipe: Recipe, dataset: PairDataset, clock: Clock, accelerator: Any
    ) -> None:
        self.recipe, self.clock, self.accelerator = recipe, clock, accelerator
        self.notes: list[str] = []
        self.training = self._material(dataset, "train")
        self.validation = self._material(dataset, recipe.evaluation.split)
        if not len(self.training):
            problem = "; ".join(["no pair to train on in the train split", *self.notes])
            raise DataError(with_notes(problem, dataset.notes), path=recipe.data.source)
        if not len(self.validation):
            self.notes.append(
                f"The {recipe.evaluation.split} split is empty: the last weights are kept, and "
                "nothing stops early."
            )
        self._require_contrast()
        self.known = known_of(recipe, self.training.samples)
        self._tell_unknown()

    def _material(self, dataset: PairDataset, split: str) -> Material:
        material = material_of(dataset.split(split))
        if material.left_out:
            self.notes.append(
                f"{material.left_out} samples of the {split} split lack a picture or a text and "
                "take no part."
            )
        return material

    def _require_contrast(self) -> None:
        """Fails where a stage tells pairs apart, and the training split has nothing to tell apart.

        Raises:
            DataError: fewer than two different texts, or two groups.
        """
        for stage in self.recipe.stages:
            for task in stage.tasks:
                if task.objective not in CONTRASTING:
                    continue
                material = _in_words_of(stage, self.training)
                if task.text is not None:
                    material = in_words(material, task.text)
                words = material.words
                if task.objective == QFORMER:
                    words = _targets_of(material, stage)
                self._require_two(len(np.unique(words)), "text", material, task.objective)
                groups = len(np.unique(material.groups))
                self._require_two(groups, "group", material, task.objective)

    def _require_two(self, found: int, what: str, material: Material, objective: str) -> None:
        if found < 2:
            shown = {
                "text": f"all of them read {material.texts[0][:60]!r}",
                "group": "all of them show the same thing",
            }[what]
            raise DataError(
                f"the train split has {len(material)} pairs and one {what}: {shown}, so {objective!r} "
                f"has nothing to tell apart: it needs at least two different {what}s",
                path=self.recipe.data.source,
            )

    def _tell_unknown(self) -> None:
        """Notes how many questions teach nothing, or fails at the first where the recipe says so."""
        answers = self.known.answers
        if answers is None:
            return
        tasks = [task for stage in self.recipe.stages for task in stage.tasks]
        strict = any(task.unknown_answers == "fail" for task in tasks)
        for split, material in (("training", self.training), ("validation", self.validation)):
            unknown = Unknown.among(material.samples, answers)
            if strict:
                unknown.require_none(split, self.training.samples, answers)
            self.notes += unknown.notes(split, answers)

    def texts(self) -> Iterator[str]:
        """Every text that some stage trains on, for tokenizers."""
        for stage in self.recipe.stages:
            if self.recipe.model.kind == "bridge":
                for task in stage.tasks:
                    yield from said(self.training, Wording(task.prompt, task.target))
                continue
            yield from _in_words_of(stage, self.training).texts
            for task in stage.tasks:
                if task.text is not None:
                    yield from in_words(self.training, task.text).texts

    def supply(self, model: Model, number: int) -> Supply:
        """The batches of stage ``number``.

        Raises:
            DataError: a picture that cannot be used, or a sample that lacks what a task needs.
        """
        stage, seed = self.recipe.stages[number], self.recipe.seed + 7919 * number
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        material = self.training
        if stage.share < 1:
            material = thinned(material, stage.share, self.recipe.seed)
        material = _in_words_of(stage, material)
        if isinstance(model, BridgedModel):
            self._look(model, stage, material)
        sources = self._sources(model, material, stage, training=True)
        plan = RowPlan(
            material.counts,
            texts=stage.texts or self.recipe.data.texts,
            batch_size=stage.batch_size,
            seed=seed,
            slots=stage.features.slots if isinstance(sources.get("image"), FeatureSource) else 1,
            world=world,
            together=material.picture_numbers if stage.together else None,
            repeats=material.repeats(self.recipe.data.repeat),
        )
        targets = self._targets(material)
        change = feature_change(stage.features, self.recipe.seed, number, rank)
        if isinstance(model, DrawingModel):
            change = with_progress(stage, plan.steps)
        return Supply(
            plan,
            sources,
            self._alike(material, stage),
            material.ids,
            rank=rank,
            world=world,
            change=change,
            targets=self._taught(model, material, stage, sources) or targets,
            tasks=_sampler(stage, targets, len(material), plan.steps, seed),
            texts=self._own_texts(model, material, stage, training=True),
        )

    def validator(self, model: Model, stage: Stage, dtype: torch.dtype) -> Evaluate | None:
        """Measures the validation split; None when it is empty."""
        if not len(self.validation):
            return None
        material = _in_words_of(stage, self.validation)
        sources = self._sources(model, material, stage, training=False)
        metric, device = watched_metric(self.recipe, stage), self.accelerator.device
        alike = self._alike(material, stage)
        if isinstance(model, DrawingModel):
            plan = InOrder(material.counts, QUESTIONS_AT_ONCE)
            supply = Supply(plan, sources, alike, material.ids)
            measure = DrawValidator if stage.tasks[0].objective == "draw" else DvaeValidator
            return measure(model, supply, device=device, dtype=dtype)
        if isinstance(model, BridgedModel):
            wording = _wording_of(stage)
            plan = InOrder(material.counts, QUESTIONS_AT_ONCE)
            supply = Supply(plan, sources, alike, material.ids)
            if stage.tasks[0].objective == QFORMER:
                return QFormerValidator(model, supply, device=device, dtype=dtype)
            return WritingValidator(
                model,
                supply,
                material.samples,
                wording,
                metric=metric,
                longest=longest_target(self.training, wording, model.writer),
                device=device,
                dtype=dtype,
            )
        if isinstance(model, FusionModel):
            task = build.build_task(model, stage)
            assert isinstance(task, FusionTask)
            targets = Targets(material.samples, self.known)
            plan = InOrder(material.counts, QUESTIONS_AT_ONCE)
            texts = self._own_texts(model, material, stage, training=False)
            supply = Supply(plan, sources, alike, material.ids, targets=targets, texts=texts)
            return FusionValidator(
                model, task, supply, targets, metric=metric, device=device, dtype=dtype
            )
        cached = all(isinstance(source, FeatureSource) for source in sources.values())
        return Validator(
            model,
            build.contrastive_task(model, stage),
            sources,
            material.counts,
            alike,
            metric=metric,
            device=device,
            dtype=dtype,
            chunk=FEATURES_AT_ONCE if cached else TOKENS_AT_ONCE,
        )

    def _alike(self, material: Material, stage: Stage) -> Alike:
        """Who is whose positive in a stage, by the words that its tasks read."""
        if self.recipe.data.equal_texts == "apart":
            return Alike(material.groups)
        own: dict[str, np.ndarray] = {
            task.objective: in_words(material, task.text).words
            for task in stage.tasks
            if task.text is not None
        }
        if stage.tasks[0].objective == QFORMER:
            words = _targets_of(material, stage)
            return Alike.of(material.groups, material.counts, words)
        return Alike.of(material.groups, material.counts, material.words, own)

    def _look(self, model: BridgedModel, stage: Stage, material: Material) -> None:
        """Tells on stderr what a stage of a language model is like, and keeps it for the report."""
        language = self.recipe.model.language
        found = preflight(model, stage, material, None if language is None else language.source)
        for line in found.lines():
            if line not in self.notes:
                self.notes.append(line)
                if self.accelerator.is_main_process:
                    print(line, file=sys.stderr)

    def _sources(
        self, model: Model, material: Material, stage: Stage, *, training: bool
    ) -> dict[str, Source]:
        if isinstance(model, DrawingModel):
            return self._drawing_sources(model, material, stage, training=training)
        features: dict[str, np.ndarray] = {}
        shown = not isinstance(model, BridgedModel) or _wording_of(stage).pictures
        for modality in cached_towers(model, stage) if shown else ():
            start = time.perf_counter()
            with self.accelerator.main_process_first():  # the others then find them in the cache
                features[modality] = frozen_features(
                    model, modality, material, stage.features, self.recipe.seed, training=training
                )
            self.clock.measure(f"{modality} features", start)
        augment = augmentation(stage.augment, self.recipe.seed) if training else None
        sources: dict[str, Source] = {}
        if shown:
            sources = sources_of(
                material,
                model,
                features,
                augment=augment,
                cache_pixels=self.recipe.data.cache_pixels,
                share=not isinstance(model, AlignmentModel),
            )
        if isinstance(model, BridgedModel):
            self._add_examples(sources, model, material, stage, training=training)
        return sources

    def _drawing_sources(
        self, model: DrawingModel, material: Material, stage: Stage, *, training: bool
    ) -> dict[str, Source]:
        start = time.perf_counter()
        sources = drawing_sources(
            model,
            material,
            stage.tasks[0].objective,
            augment=augmentation(stage.augment, self.recipe.seed) if training else None,
            cache_pixels=self.recipe.data.cache_pixels,
        )
        self.clock.measure("codes", start)
        return sources

    def _add_examples(
        self,
        sources: dict[str, Source],
        model: BridgedModel,
        material: Material,
        stage: Stage,
        *,
        training: bool,
    ) -> None:
        """Texts of a language model; with examples before them where a training task has some."""
        wording, most = _wording_of(stage), stage.tasks[0].shots if training else 0
        if stage.tasks[0].objective == QFORMER:
            bridge, _ = parts_of_first_stage(model)
            sources[TEXT] = WordSource(material, wording, model.writer, bridge.max_length)
            return
        sources[TEXT] = ExampleSource(material, wording, model.writer)
        picture = sources.get(IMAGE)
        if most and isinstance(picture, PixelSource):
            numbers = material.picture_numbers
            shots = Shots(numbers, most, self.recipe.seed)
            sources[IMAGE] = EpisodePictures(picture.load, numbers, shots, picture.augment)
            sources[TEXT] = EpisodeTexts(
                material.samples, material.texts, wording, model.writer, shots
            )

    def _own_texts(
        self, model: Model, material: Material, stage: Stage, *, training: bool
    ) -> dict[str, Source]:
        """By task, where its text comes from if it has one of its own."""
        found: dict[str, Source] = {}
        for task in stage.tasks:
            if task.text is None:
                continue
            said = in_words(material, task.text)
            if TEXT in cached_towers(model, stage):
                with self.accelerator.main_process_first():
                    features = frozen_features(
                        model, TEXT, said, stage.features, self.recipe.seed, training=training
                    )
                found[task.objective] = FeatureSource(features, "sample")
            else:
                preprocess = model.tower(TEXT).encoder.preprocess
                assert isinstance(preprocess, TextPreprocess)
                found[task.objective] = TokenSource(said.texts, preprocess, "sample")
        return found

    def _taught(
        self, model: Model, material: Material, stage: Stage, sources: dict[str, Source]
    ) -> TargetsOfRows | None:
        """The rows of the stage's teacher, if it has one."""
        task = distil_of(stage)
        if task is None or task.teacher is None:
            return None
        assert isinstance(model, AlignmentModel)
        start = time.perf_counter()
        teacher = load_teacher(task.teacher, dim=model.dim, task=task)
        versions = isinstance(sources.get(IMAGE), FeatureSource)
        rows = teacher_rows(teacher, material, stage.features, self.recipe.seed, versions=versions)
        self.clock.measure("teacher", start)
        return rows

    def _targets(self, material: Material) -> Targets | None:
        return Targets(material.samples, self.known) if self.known.labels else None


def _in_words_of(stage: Stage, material: Material) -> Material:
    """The pairs of a split in the words of a stage."""
    return material if stage.text is None else in_words(material, stage.text)


def _targets_of(material: Material, stage: Stage) -> np.ndarray:
    """(m,) equal where what a stage of a language model should write reads the same."""
    wording = _wording_of(stage)
    return text_numbers(wording.of(sample, text)[1] for sample, text in pairs_of(material))


def _wording_of(stage: Stage) -> Wording:
    """The templates of the one task of a stage of a language model."""
    return Wording(stage.tasks[0].prompt, stage.tasks[0].target)


def _sampler(
    stage: Stage, targets: Targets | None, rows: int, steps: int, seed: int
) -> TaskSampler | None:
    if stage.sampling == "together" or len(stage.tasks) < 2:
        return None
    counts = {} if targets is None else targets.counts()
    names = [task.objective for task in stage.tasks]
    sizes = [counts.get(name, rows) for name in names]
    temperature = stage.sampling_temperature
    return TaskSampler(
        stage.sampling, names, sizes, steps=steps, seed=seed, temperature=temperature
    )
