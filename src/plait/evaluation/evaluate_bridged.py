"""How well a language model that sees answers and describes, and how much it needs the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.core.errors import DataError
from plait.core.progress import track
from plait.data.answers import stated_answers
from plait.data.dataset import PairDataset
from plait.data.sample import MediaRef, Sample
from plait.data.wording import filled
from plait.evaluation.caption_metrics import evaluate_captions
from plait.evaluation.vqa import vqa_figures
from plait.models.bridged.generate import Writing
from plait.models.bridged.model import BridgedModel
from plait.models.bridged.write import AT_ONCE, write

LONGEST = 32  # new tokens of a caption or an answer


def evaluate_bridged(
    model: BridgedModel,
    dataset: PairDataset,
    *,
    split: str = "all",
    how: Writing | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Lets a model write about the pictures of a split.

    Args:
        model: trained to ``answer`` or to ``caption``.
        dataset: samples with a picture and a text.
        split: ``train``, ``validation``, ``test``, or ``all`` that the data set holds.
        how: greedy when None.
        bootstrap: replicates of the 95% intervals, over pictures.
        seed: of the intervals and of the control.

    Returns:
        ``vqa`` (see `plait.evaluation.vqa`) or ``captions`` (see `evaluate_captions`), ``controls``
        (the same with every picture exchanged for another sample's), and ``counts``.

    Raises:
        DataError: no sample to measure.
    """
    how = how or Writing(longest=LONGEST)
    samples = [s for s in dataset.split(split) if s.image is not None and s.texts]
    found: dict[str, Any] = {}
    for name, task in model.tasks.items():
        judged = [s for s in samples if name != "answer" or stated_answers(s)]
        if not judged:
            raise DataError(f"no sample of the split {split!r} has a picture and what to {name}")
        prompts = [
            filled(task["prompt"], {**s.labels, "text": s.texts[0]}, s.where) for s in judged
        ]
        pictures = [s.image for s in judged if s.image is not None]
        shuffled = _shuffled(pictures, seed)
        figures = []
        for title, shown in (("Writing", pictures), ("Control: shuffled pictures", shuffled)):
            written = _written(model, shown, prompts, how, title)
            figures.append(_figures(name, written, judged, bootstrap, seed))
        kind = "vqa" if name == "answer" else "captions"
        found[kind] = figures[0]
        found.setdefault("controls", {})["shuffled_pictures"] = (
            figures[1]["accuracy"] if name == "answer" else figures[1]
        )
        found["counts"] = {"samples": len(judged), "pictures": len(set(pictures))}
    return found


def _written(
    model: BridgedModel,
    pictures: Sequence[MediaRef],
    prompts: Sequence[str],
    how: Writing,
    title: str,
) -> list[str]:
    batches = write(model, [[one] for one in pictures], prompts, how)
    total = -(-len(prompts) // AT_ONCE)
    return [text for batch in track(batches, title, total=total) for text in batch]


def _figures(
    name: str, written: list[str], samples: Sequence[Sample], bootstrap: int, seed: int
) -> dict[str, Any]:
    groups = np.array([str(sample.group or sample.id) for sample in samples])
    if name == "answer":
        given = [stated_answers(sample) for sample in samples]
        return vqa_figures(written, given, groups=groups, bootstrap=bootstrap, seed=seed)
    references = [list(sample.texts) for sample in samples]
    return evaluate_captions(written, references, groups=groups, bootstrap=bootstrap, seed=seed)


def _shuffled(pictures: Sequence[MediaRef], seed: int) -> list[MediaRef]:
    """Each picture exchanged for another's; equal pictures stay together."""
    distinct = list(dict.fromkeys(pictures))
    order = np.random.default_rng(seed).permutation(len(distinct))
    other = {distinct[a]: distinct[b] for a, b in zip(order, np.roll(order, 1), strict=True)}
    return [other[one] for one in pictures]
