"""Inputs to calibrate with, and the pairs that candidates are judged on.

Shape legend: n samples, m texts, E features of the shared space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.core.modality import IMAGE, TEXT
from plait.core.random import permutation
from plait.data.base.dataset import PairDataset
from plait.data.base.equal_texts import EqualTexts
from plait.engines.pooled import text_batches
from plait.evaluation.evaluate.gallery import corrected, gallery_of
from plait.evaluation.metrics.retrieval import bootstrap_interval, ranks_of, retrieval
from plait.modalities.image.fast_decode import pixel_batches
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.base.hubs import HubCorrection

BATCH = 32
Run = Callable[[str, Mapping[str, np.ndarray]], np.ndarray]
"""(modality, named inputs) to unit rows (B, E)."""
Preprocesses = Mapping[str, Any]


def calibration_inputs(
    dataset: PairDataset, preprocesses: Preprocesses, *, samples: int = 200, seed: int = 0
) -> dict[str, list[dict[str, np.ndarray]]]:
    """By modality the inputs of some samples, each a batch of one row (so that nothing is padded).

    Args:
        dataset: the training split; no sample of it may be in what is reported on.
        preprocesses: by modality.
        samples: how many, drawn at random.
        seed: of the draw.

    Raises:
        DataError: no sample has what is needed, or a picture cannot be used.
    """
    order = permutation(len(dataset), seed, "calibration")[: 4 * samples]
    found: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in preprocesses}
    refs: list[MediaRef] = []
    for place in order.tolist():
        sample = dataset[place]
        if sample.image is not None and len(refs) < samples:
            refs.append(sample.image)
        if TEXT in found and sample.texts and len(found[TEXT]) < samples:
            ids, mask = preprocesses[TEXT]([sample.texts[place % len(sample.texts)]])
            found[TEXT].append({"ids": ids, "mask": mask})
    if IMAGE in found:
        for _, block in pixel_batches(refs, preprocesses[IMAGE], batch_size=BATCH, threads=1):
            found[IMAGE] += [{"pixels": row[None]} for row in block]
    for name, inputs in found.items():
        if not inputs:
            raise DataError(f"no sample of the training split has {name} data to calibrate with")
    return found


@dataclass(frozen=True)
class Split:
    """Pairs ready to be embedded again and again.

    Attributes:
        dataset: samples that all have a picture.
        preprocesses: by modality.
        hubs: the model's correction of scores, or None.
        equal_texts: see `plait.evaluation.evaluate.gallery.gallery_of`.
    """

    dataset: PairDataset
    preprocesses: Preprocesses
    hubs: HubCorrection | None = None
    equal_texts: EqualTexts = "same"

    @property
    def texts(self) -> list[str]:
        """All m texts, in the order of their samples."""
        return [text for sample in self.dataset for text in sample.texts]

    def embed(self, run: Run) -> SplitRows:
        """Rows of every picture and text. Raises DataError for a picture that cannot be used."""
        image, text = self.preprocesses[IMAGE], self.preprocesses[TEXT]
        assert isinstance(image, ImagePreprocess)
        assert isinstance(text, TextPreprocess)
        refs = [sample.image for sample in self.dataset if sample.image is not None]
        if len(refs) != len(self.dataset):
            raise DataError("a sample without a picture cannot be judged by retrieval")
        pictures = [
            run(IMAGE, {"pixels": block})
            for _, block in pixel_batches(refs, image, batch_size=BATCH, threads=1)
        ]
        texts = self.texts
        words: np.ndarray | None = None
        for places, inputs in text_batches(texts, text, BATCH)(range(len(texts))):
            rows = run(TEXT, inputs)
            if words is None:
                words = np.zeros((len(texts), rows.shape[1]), np.float32)
            words[places] = rows
        assert words is not None
        return SplitRows(self, np.concatenate(pictures), words)


@dataclass(frozen=True)
class SplitRows:
    """The embeddings of a split; as `plait.evaluation.evaluate.gallery` takes them."""

    split: Split
    image: Float[np.ndarray, "n E"]
    text: Float[np.ndarray, "m E"]
    skipped: Sequence[Any] = field(default=())

    @property
    def ids(self) -> Sequence[str]:
        """Of the n samples."""
        return [sample.id for sample in self.split.dataset]

    @property
    def groups(self) -> Int[np.ndarray, " n"]:
        """Equal where samples show the same thing."""
        return self.split.dataset.group_numbers()

    @property
    def text_owner(self) -> Int[np.ndarray, " m"]:
        """The sample of each text."""
        counts = [len(sample.texts) for sample in self.split.dataset]
        return np.repeat(np.arange(len(counts)), counts)

    @property
    def texts(self) -> list[str]:
        """The m texts."""
        return self.split.texts


@dataclass(frozen=True)
class Judged:
    """Retrieval of a candidate on a split.

    Attributes:
        figures: see `plait.evaluation.metrics.retrieval.retrieval`.
        hits: 1 where a query's best answer is right, first of all texts, then of all pictures.
        cluster: which queries belong together (of the bootstrap).
        directions: 0 for a query by words, 1 by a picture.
    """

    figures: Mapping[str, Mapping[str, Any]]
    hits: Float[np.ndarray, " q"]
    cluster: Int[np.ndarray, " q"]
    directions: Int[np.ndarray, " q"]

    @property
    def recall(self) -> float:
        """Recall@1, the mean of both directions, in percent."""
        return float(np.mean([way["R@1"] for way in self.figures.values()]))


def judge(rows: SplitRows, *, bootstrap: int = 1000, seed: int = 0) -> Judged:
    """Retrieval both ways, with the model's correction for hubs where it has one."""
    split = rows.split
    gallery = corrected(gallery_of(rows, split.dataset, equal_texts=split.equal_texts), split.hubs)
    biases: dict[str, Any] = {"image_bias": gallery.image_bias, "text_bias": gallery.text_bias}
    image, text, owner = gallery.image, gallery.text, gallery.text_owner
    alike: dict[str, Any] = {"image_groups": gallery.groups, "text_words": gallery.text_words}
    figures = retrieval(image, text, owner, **alike, bootstrap=bootstrap, seed=seed, **biases)
    answers = gallery.answers
    ranks = ranks_of(image, text, answers, **biases)
    asked = ranks.image_to_text > 0
    hits = np.concatenate([ranks.text_to_image == 1, ranks.image_to_text[asked] == 1])
    return Judged(
        figures,
        hits.astype(np.float64),
        np.concatenate([answers.label, answers.group[asked]]),
        np.repeat([0, 1], [len(gallery.text), int(asked.sum())]),
    )


def loss_between(before: Judged, after: Judged, *, seed: int = 0) -> dict[str, float]:
    """Points of recall@1 lost, mean of both directions, with the 95% interval of paired queries.

    Both judged the same queries, so that the interval is of their differences: chance that hits
    both alike does not widen it. Queries of a direction weigh alike.
    """
    lost = before.hits - after.hits
    count = np.bincount(before.directions, minlength=2)
    weight = len(lost) / (2 * count[before.directions])
    interval = bootstrap_interval((lost * weight)[:, None], before.cluster, seed=seed)
    found = {"points": before.recall - after.recall}
    if interval is not None:
        found |= {"low": float(100 * interval[0][0]), "high": float(100 * interval[1][0])}
    return found
