"""Everything that is measured of a fusion model: what each of its heads says on a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.core.errors import DataError
from plait.data.base.dataset import PairDataset
from plait.data.base.equal_texts import EqualTexts, text_numbers
from plait.data.base.notes import with_notes
from plait.data.base.sample import Sample
from plait.data.base.wording import text_of
from plait.evaluation.evaluate.answers import evaluate_answers
from plait.evaluation.metrics.retrieval import bootstrap_interval
from plait.models.fusion.asking import answer_logits, match_scores
from plait.models.fusion.model import FusionModel


def evaluate_fusion(
    model: FusionModel,
    dataset: PairDataset,
    *,
    split: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
    equal_texts: EqualTexts = "same",
) -> dict[str, Any]:
    """Measures a split.

    Args:
        model: with heads ``answer``, ``classify`` or ``match``; others measure nothing here.
        dataset: samples with a picture and a text.
        split: ``train``, ``validation``, ``test``, or ``all`` that the data set holds.
        bootstrap: replicates of the 95% intervals, over pictures.
        seed: of the intervals, wrong pairs and controls.
        equal_texts: whether a text that reads like a picture's own is no wrong one for it (see
            `plait.evaluation.evaluate.gallery.gallery_of`).

    Returns:
        In percent ``vqa`` with ``controls`` (see `evaluate_answers`), ``classification`` and
        ``match`` (each ``accuracy`` with its interval), by the heads; and ``counts``.

    Raises:
        DataError: no sample to measure.
    """
    found: dict[str, Any] = {}
    if "answer" in model.heads:
        found |= evaluate_answers(model, dataset, split=split, bootstrap=bootstrap, seed=seed)
    samples = [s for s in dataset.split(split) if s.image is not None and s.texts]
    if not samples:
        problem = f"no pair of a picture and a text in the split {split!r}"
        raise DataError(with_notes(problem, dataset.notes))
    if "classify" in model.heads:
        found["classification"] = _classes(model, samples, bootstrap, seed)
    if "match" in model.heads:
        found["match"] = _matching(model, samples, bootstrap, seed, equal_texts)
    found.setdefault("counts", {"pairs": len(samples)})
    return found


def _classes(
    model: FusionModel, samples: Sequence[Sample], bootstrap: int, seed: int
) -> dict[str, Any]:
    """Accuracy over the samples that carry one of the model's classes."""
    labels, about = model.labels("classify"), model.about("classify")
    key = about["label"]
    judged = [sample for sample in samples if str(sample.labels.get(key)) in labels]
    if not judged:
        raise DataError(f"no sample has one of the model's classes under the label {key!r}")
    pictures = [sample.image for sample in judged if sample.image is not None]
    texts = [text_of(sample, about.get("text")) for sample in judged]
    predicted: list[int] = []
    for logits in answer_logits(model, pictures, texts, head="classify"):
        predicted += logits.argmax(dim=1).tolist()
    right = [
        labels[place] == str(sample.labels[key])
        for place, sample in zip(predicted, judged, strict=True)
    ]
    return _accuracy(np.array(right, float), judged, bootstrap, seed)


def _matching(
    model: FusionModel,
    samples: Sequence[Sample],
    bootstrap: int,
    seed: int,
    equal_texts: EqualTexts,
) -> dict[str, Any]:
    """Is a sample's own text likelier to belong to its picture than not, and a wrong one not?

    Every picture is judged with its first text and with one of another group that reads otherwise.
    """
    order = np.random.default_rng(seed).permutation(len(samples))
    template = model.about("match").get("text")
    texts = [text_of(sample, template) for sample in samples]
    words = text_numbers(texts) if equal_texts == "same" else np.arange(len(texts))
    groups = [sample.group_key for sample in samples]
    other = np.empty(len(samples), int)
    for place, row in enumerate(order):
        step = 1
        while step < len(order):
            wrong = order[(place + step) % len(order)]
            if groups[wrong] != groups[row] and words[wrong] != words[row]:
                break
            step += 1
        other[row] = order[(place + step) % len(order)]
    pictures = [sample.image for sample in samples if sample.image is not None]
    own = match_scores(model, pictures, texts)
    wrong = match_scores(model, pictures, [texts[row] for row in other])
    right = ((own > 0).astype(float) + (wrong <= 0)) / 2
    return _accuracy(right, samples, bootstrap, seed)


def _accuracy(
    right: np.ndarray, samples: Sequence[Sample], bootstrap: int, seed: int
) -> dict[str, Any]:
    _, cluster = np.unique([str(s.group or s.id) for s in samples], return_inverse=True)
    found: dict[str, Any] = {"accuracy": 100 * float(right.mean()), "samples": len(right)}
    interval = bootstrap_interval(right[:, None], cluster, replicates=bootstrap, seed=seed)
    if interval is not None:
        found["accuracy_low"] = 100 * float(interval[0][0])
        found["accuracy_high"] = 100 * float(interval[1][0])
    return found
