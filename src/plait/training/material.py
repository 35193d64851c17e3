"""What a stage trains on: the pairs of a split, and each modality's source of inputs.

Legend: n samples, m texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plait.core.errors import DataError
from plait.data.dataset import PairDataset
from plait.data.fast_decode import load_pixels
from plait.data.pixel_cache import PixelCache
from plait.data.preprocess import ImagePreprocess, TextPreprocess
from plait.data.sample import MediaRef
from plait.models.alignment import AlignmentModel
from plait.training.schema import Stage
from plait.training.supply import FeatureSource, PixelSource, Source, TokenSource


@dataclass(frozen=True)
class Material:
    """The samples of a split that have both a picture and a text.

    Attributes:
        ids: of the n samples.
        where: of the n samples, the row they came from.
        pictures: of the n samples.
        groups: (n,) equal where samples show the same thing.
        texts: of all samples in their order, m in all.
        counts: (n,) texts of each sample.
        left_out: samples that lack a picture or a text.
    """

    ids: Sequence[str]
    where: Sequence[str]
    pictures: Sequence[MediaRef]
    groups: np.ndarray
    texts: Sequence[str]
    counts: np.ndarray
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def failed(self, position: int, error: DataError) -> None:
        """Raises the error of a picture with the row that names it."""
        raise DataError(str(error), path=self.where[position]) from error


def material_of(dataset: PairDataset) -> Material:
    """The pairs of a data set."""
    ids, where, pictures, counts, kept = [], [], [], [], []
    texts: list[str] = []
    for position, sample in enumerate(dataset):
        if sample.image is None or not sample.texts:
            continue
        ids.append(sample.id)
        where.append(sample.where)
        pictures.append(sample.image)
        texts.extend(sample.texts)
        counts.append(len(sample.texts))
        kept.append(position)
    groups = dataset.group_numbers()[np.array(kept, dtype=np.int64)]
    left_out = len(dataset) - len(kept)
    return Material(ids, where, pictures, groups, texts, np.array(counts, dtype=np.int64), left_out)


Augment = Callable[[Any, Sequence[str], int], Any]


def cached_towers(model: AlignmentModel, stage: Stage) -> list[str]:
    """The towers of a stage whose features are computed once."""
    if stage.features.cache is False:
        return []
    return [name for name in model.modalities if stage.part(f"{name}.encoder").mode == "frozen"]


def sources_of(
    material: Material,
    model: AlignmentModel,
    features: Mapping[str, np.ndarray],
    *,
    augment: Augment | None = None,
    cache_pixels: bool = False,
) -> dict[str, Source]:
    """Where each modality's inputs come from.

    Args:
        material: the split.
        model: for preprocessing.
        features: of the towers that are not run again: (n, S, D) of pictures in S augmented
            versions, (m, D) of texts.
        augment: (pixels, ids, epoch) to pixels; None for none.
        cache_pixels: keep decoded pictures on disk.
    """
    sources: dict[str, Source] = {}
    for name in model.modalities:
        preprocess = model.tower(name).encoder.preprocess
        if name in features:
            sources[name] = FeatureSource(features[name], "text" if name == "text" else "sample")
        elif isinstance(preprocess, TextPreprocess):
            sources[name] = TokenSource(material.texts, preprocess)
        else:
            sources[name] = _pixel_source(material, preprocess, augment, cache_pixels)
    return sources


def _pixel_source(
    material: Material, preprocess: ImagePreprocess, augment: Augment | None, cache_pixels: bool
) -> PixelSource:
    store = PixelCache(preprocess) if cache_pixels else None

    def load(positions: Sequence[int]) -> Any:
        distinct, places = np.unique(np.asarray(positions), return_inverse=True)
        pixels = load_pixels(
            [material.pictures[i] for i in distinct],
            preprocess,
            store=store,
            on_error=lambda place, error: material.failed(int(distinct[place]), error),
        )
        return pixels[places]

    def change(pixels: Any, positions: Sequence[int], epoch: int) -> Any:
        assert augment is not None
        return augment(pixels, [material.ids[i] for i in positions], epoch)

    return PixelSource(load, None if augment is None else change)
