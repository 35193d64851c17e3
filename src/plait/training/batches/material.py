"""What a stage trains on: the pairs of a split, and each modality's source of inputs.

Legend: n samples, m texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from plait.core.batch import ModalityInput
from plait.core.errors import DataError, RecipeError
from plait.core.media import MediaRef
from plait.core.random import uniform
from plait.data.base.dataset import PairDataset
from plait.data.base.equal_texts import text_numbers
from plait.data.base.sample import Sample
from plait.data.base.wording import worded
from plait.modalities.image.clips import frames_of
from plait.modalities.image.fast_decode import load_pixels
from plait.modalities.image.pixel_cache import PixelCache
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.regions import RegionPreprocess, load_regions
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.bridged.model import BridgedModel
from plait.models.fusion.model import FusionModel
from plait.models.store.kinds import Model
from plait.training.batches.supply import (
    FeatureSource,
    PixelSource,
    RegionSource,
    Source,
    TokenSource,
)
from plait.training.recipe.schema import Repeat
from plait.training.recipe.stage import Stage


@dataclass(frozen=True)
class Material:
    """The samples of a split that have both a picture and a text.

    Attributes:
        samples: n of them.
        groups: (n,) equal where samples show the same thing.
        texts: of all samples in their order, m in all.
        counts: (n,) texts of each sample.
        left_out: samples that lack a picture or a text.
    """

    samples: Sequence[Sample]
    groups: np.ndarray
    texts: Sequence[str]
    counts: np.ndarray
    left_out: int = 0

    @cached_property
    def ids(self) -> list[str]:
        """Of the n samples."""
        return [sample.id for sample in self.samples]

    @cached_property
    def words(self) -> np.ndarray:
        """(m,) equal where texts read the same."""
        return text_numbers(self.texts)

    @cached_property
    def pictures(self) -> list[MediaRef]:
        """Of the n samples."""
        return [sample.image for sample in self.samples if sample.image is not None]

    @cached_property
    def picture_numbers(self) -> np.ndarray:
        """(n,) equal where samples show the same file."""
        known: dict[MediaRef, int] = {}
        return np.array([known.setdefault(ref, len(known)) for ref in self.pictures], np.int64)

    def repeats(self, settings: Repeat | None) -> np.ndarray | None:
        """(n,) how often each sample comes in an epoch; None: once.

        Raises:
            DataError: no sample is of one of the values that are named.
        """
        if settings is None:
            return None
        values = [str(sample.meta.get(settings.field)) for sample in self.samples]
        for value in settings.times:
            if value not in values:
                raise DataError(
                    f"data.repeat: no training sample has {value!r} in its field {settings.field!r}"
                )
        return np.array([settings.times.get(value, 1) for value in values], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def failed(self, position: int, error: DataError) -> None:
        """Raises the error of a picture with the row that names it."""
        raise DataError(str(error), path=self.samples[position].where) from error


def material_of(dataset: PairDataset) -> Material:
    """The pairs of a data set."""
    kept = [
        position
        for position, sample in enumerate(dataset)
        if sample.image is not None and sample.texts
    ]
    samples = [dataset[position] for position in kept]
    groups = dataset.group_numbers()[np.array(kept, dtype=np.int64)]
    return _with_own_texts(samples, groups, len(dataset) - len(kept))


def _with_own_texts(samples: Sequence[Sample], groups: np.ndarray, left_out: int) -> Material:
    texts = [text for sample in samples for text in sample.texts]
    counts = np.array([len(sample.texts) for sample in samples], dtype=np.int64)
    return Material(samples, groups, texts, counts, left_out)


def thinned(material: Material, share: float, seed: int) -> Material:
    """About ``share`` of the samples, drawn by picture: all of a picture's samples, or none.

    Raises:
        DataError: none is left.
    """
    numbers = material.picture_numbers
    drawn = uniform(int(numbers.max()) + 1, seed, "share") < share
    kept = np.flatnonzero(drawn[numbers])
    if not len(kept):
        raise DataError(f"a share of {share:g} leaves nothing of {len(material)} training samples")
    samples = [material.samples[place] for place in kept.tolist()]
    return _with_own_texts(samples, material.groups[kept], material.left_out)


def in_words(material: Material, template: str) -> Material:
    """The same samples, each with one text made of its labels (see `plait.data.base.wording`)."""
    texts = [worded(sample, template) for sample in material.samples]
    return replace(material, texts=texts, counts=np.ones(len(texts), dtype=np.int64))


Augment = Callable[[Any, Sequence[str], int], Any]


def cached_towers(model: Model, stage: Stage) -> list[str]:
    """The towers of a stage whose features are computed once.

    Pooled features alone are kept, so a fusion that reads tokens has none.
    """
    if stage.features.cache is False:
        return []
    if isinstance(model, FusionModel) and not getattr(model.joint, "pooled_only", False):
        return []
    if isinstance(model, BridgedModel) and (model.reads != "pooled" or model.frames):
        return []
    return [
        name
        for name in model.modalities
        if stage.part(f"{name}.encoder").mode == "frozen"
        # Regions are features already.
        and not isinstance(model.tower(name).encoder.preprocess, RegionPreprocess)
    ]


def sources_of(
    material: Material,
    model: Model,
    features: Mapping[str, np.ndarray],
    *,
    augment: Augment | None = None,
    cache_pixels: bool = False,
    share: bool = False,
) -> dict[str, Source]:
    """Where each modality's inputs come from.

    Args:
        material: the split.
        model: for preprocessing.
        features: of the towers that are not run again: (n, S, D) of pictures in S augmented
            versions, (m, D) of texts.
        augment: (pixels, ids, epoch) to pixels; None for none.
        cache_pixels: keep decoded pictures on disk.
        share: a picture of several rows is given once (`plait.models.base.encoding.ROWS`).
    """
    sources: dict[str, Source] = {}
    frames = model.frames if isinstance(model, BridgedModel) else 0
    for name in model.modalities:
        preprocess = model.tower(name).encoder.preprocess
        if name in features:
            sources[name] = FeatureSource(features[name], "text" if name == "text" else "sample")
        elif isinstance(preprocess, TextPreprocess):
            sources[name] = TokenSource(material.texts, preprocess)
        elif isinstance(preprocess, RegionPreprocess):
            sources[name] = _region_source(material, preprocess, augment)
        else:
            sources[name] = _pixel_source(
                material, preprocess, augment, cache_pixels, share=share, frames=frames
            )
    return sources


def _region_source(
    material: Material, preprocess: RegionPreprocess, augment: Augment | None
) -> RegionSource:
    if augment is not None:
        raise RecipeError("regions that a detector found before cannot be augmented: leave it out")

    def load(positions: Sequence[int]) -> ModalityInput:
        return load_regions(
            [material.pictures[i] for i in positions],
            preprocess,
            on_error=lambda place, error: material.failed(int(positions[place]), error),
        )

    return RegionSource(load)


def _pixel_source(
    material: Material,
    preprocess: ImagePreprocess,
    augment: Augment | None,
    cache_pixels: bool,
    *,
    share: bool,
    frames: int,
) -> PixelSource:
    each = max(1, frames)
    store = PixelCache(preprocess) if cache_pixels else None

    def load(positions: Sequence[int]) -> Any:
        return load_pixels(
            frames_of([material.pictures[i] for i in positions], frames),
            preprocess,
            store=store,
            on_error=lambda place, error: material.failed(int(positions[place // each]), error),
        )

    def change(pixels: Any, positions: Sequence[int], epoch: int) -> Any:
        assert augment is not None
        # Frames of a clip share its id, and so are changed alike.
        return augment(pixels, [material.ids[i] for i in positions for _ in range(each)], epoch)

    changed = None if augment is None else change
    return PixelSource(load, changed, numbers=material.picture_numbers, share=share)
