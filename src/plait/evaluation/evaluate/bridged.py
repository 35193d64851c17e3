"""How well a language model that sees answers and describes, and how much it needs the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.core.progress import track
from plait.core.random import uniform
from plait.data.base.dataset import PairDataset
from plait.data.base.notes import with_notes
from plait.data.base.sample import Sample
from plait.data.base.wording import filled
from plait.data.vqa.answers import stated_answers
from plait.evaluation.metrics.captions import evaluate_captions
from plait.evaluation.metrics.vqa import vqa_figures
from plait.models.bridged.generate import Writing
from plait.models.bridged.model import BridgedModel
from plait.models.bridged.write import AT_ONCE, write

EXAMPLES = 12  # captions shown in reports
LONGEST = 32  # new tokens of a caption or an answer


def evaluate_bridged(
    model: BridgedModel,
    dataset: PairDataset,
    *,
    split: str = "all",
    how: Writing | None = None,
    shots: int = 0,
    support: PairDataset | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Lets a model write about the pictures of a split.

    Args:
        model: trained to ``answer`` or to ``caption``.
        dataset: samples with a picture and a text.
        split: ``train``, ``validation``, ``test``, or ``all`` that the data set holds.
        how: greedy when None.
        shots: examples of ``support`` before each sample, drawn for it alone.
        support: where examples come from, such as the training split.
        bootstrap: replicates of the 95% intervals, over pictures.
        seed: of the intervals and of the control.

    Returns:
        ``vqa`` (see `plait.evaluation.metrics.vqa`) or ``captions`` (see `evaluate_captions`), ``controls``
        (the same with every picture exchanged for another sample's), ``examples`` of captions, and
        ``counts``.

    Raises:
        DataError: no sample to measure.
    """
    how = how or Writing(longest=LONGEST)
    samples = [s for s in dataset.split(split) if s.image is not None and s.texts]
    found: dict[str, Any] = {}
    for name, task in model.tasks.items():
        judged = [s for s in samples if name != "answer" or stated_answers(s)]
        if not judged:
            problem = f"no sample of the split {split!r} has a picture and what to {name}"
            raise DataError(with_notes(problem, dataset.notes))
        prompts = [said_of(one, task["prompt"]) for one in judged]
        own = [s.image for s in judged if s.image is not None]
        before = _examples(model, task, judged, shots, support, seed)
        figures, said = [], []
        for title, pictures in (
            ("Writing", own),
            ("Control: shuffled pictures", _shuffled(own, seed)),
        ):
            written = _written(
                model,
                [[*shown, one] for (_, shown), one in zip(before, pictures, strict=True)],
                [text + asked for (text, _), asked in zip(before, prompts, strict=True)],
                how,
                title,
            )
            said.append(written)
            figures.append(_figures(name, written, judged, bootstrap, seed))
        kind = "vqa" if name == "answer" else "captions"
        found[kind] = figures[0]
        found.setdefault("controls", {})["shuffled_pictures"] = (
            figures[1]["accuracy"] if name == "answer" else figures[1]
        )
        if name == "caption":
            found["examples"] = [
                {"written": one, "references": list(sample.texts), "another_picture": other}
                for one, other, sample in list(zip(*said, judged, strict=True))[:EXAMPLES]
            ]
        found["counts"] = {"samples": len(judged), "pictures": len(set(own)), "shots": shots}
    return found


def said_of(sample: Sample, template: str) -> str:
    """A template with a sample's labels and text."""
    return filled(template, {**sample.labels, "text": sample.texts[0]}, sample.where)


def _examples(
    model: BridgedModel,
    task: Mapping[str, str],
    samples: Sequence[Sample],
    shots: int,
    support: PairDataset | None,
    seed: int,
) -> list[tuple[str, list[MediaRef]]]:
    """For each sample the texts and the pictures of the examples before it.

    Raises:
        DataError: fewer pictures to draw from than examples are asked for.
    """
    if not shots:
        return [("", [])] * len(samples)
    known = [s for s in support or () if s.image is not None and s.texts]
    if len({s.image for s in known}) <= shots:
        raise DataError(f"{shots} examples need more than {shots} other pictures to draw from")
    end = model.language.preprocess.tokenizer.id_to_token(model.language.end) or ""
    found = []
    for sample in samples:
        order = uniform(8 * shots + 8, seed, "support", sample.id)
        chosen: dict[MediaRef, Sample] = {}
        for one in (known[int(place * len(known))] for place in order):
            if one.image is not None and one.image != sample.image and len(chosen) < shots:
                chosen.setdefault(one.image, one)
        texts = [
            said_of(one, task["prompt"]) + said_of(one, task["target"]) + end
            for one in chosen.values()
        ]
        found.append(("".join(texts), list(chosen)))
    return found


def _written(
    model: BridgedModel,
    pictures: Sequence[Sequence[MediaRef]],
    prompts: Sequence[str],
    how: Writing,
    title: str,
) -> list[str]:
    batches = write(model, pictures, prompts, how)
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
