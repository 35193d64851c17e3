"""How well a fusion model answers questions about pictures, and how much it needs the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.core.modality import IMAGE, TEXT
from plait.core.progress import track
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.base.wording import text_of
from plait.data.vqa.answers import stated_answers
from plait.evaluation.metrics.vqa import vqa_figures
from plait.models.fusion.asking import (
    QUESTIONS_AT_ONCE,
    Change,
    answer_logits,
    shuffled_pictures,
    without,
)
from plait.models.fusion.model import FusionModel


def evaluate_answers(
    model: FusionModel,
    dataset: PairDataset,
    *,
    split: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
    controls: bool = True,
) -> dict[str, Any]:
    """Asks every question of a split.

    Args:
        model: with an answer head.
        dataset: samples with a picture, a question as their text, and answers among their labels.
        split: ``train``, ``validation``, ``test``, or ``all`` that the data set holds.
        bootstrap: replicates of the 95% intervals, over pictures.
        seed: of the intervals and of the control that shuffles pictures.
        controls: also without pictures, without questions, and with another question's picture.

    Returns:
        ``vqa`` (see `plait.evaluation.metrics.vqa.vqa_figures`), ``controls`` (accuracy of each, percent) and
        ``counts``.

    Raises:
        DataError: no question in the split that has a picture and an answer.
    """
    every = list(dataset.split(split))
    samples = [s for s in every if s.image is not None and s.texts and stated_answers(s)]
    if not samples:
        raise DataError(f"no question with a picture and an answer in the split {split!r}")
    pictures, questions, answers = asked(samples, model.about("answer").get("text"))
    groups = np.array([str(sample.group or sample.id) for sample in samples])
    kinds = [
        [sample.labels.get(name) for sample in samples] for name in ("question_type", "answer_type")
    ]
    report: dict[str, Any] = {
        "vqa": vqa_figures(
            predict(model, pictures, questions, title="Answering"),
            answers,
            groups=groups,
            question_types=kinds[0] if any(kinds[0]) else None,
            answer_types=kinds[1] if any(kinds[1]) else None,
            bootstrap=bootstrap,
            seed=seed,
        ),
        "counts": {
            "questions": len(samples),
            "pictures": len(set(pictures)),
            "not_judged": len(every) - len(samples),
        },
    }
    if controls:
        changes: Mapping[str, Change] = {
            "question_only": without(IMAGE),
            "picture_only": without(TEXT),
            "shuffled_pictures": shuffled_pictures(seed),
        }
        report["controls"] = {
            name: vqa_figures(
                predict(model, pictures, questions, change=change, title=f"Control: {name}"),
                answers,
                groups=groups,
                bootstrap=0,
            )["accuracy"]
            for name, change in changes.items()
        }
    return report


def asked(
    samples: Sequence[Sample], template: str | None = None
) -> tuple[list[MediaRef], list[str], list[tuple[str, ...]]]:
    """Pictures, questions and answers of samples.

    Args:
        samples: questions about pictures.
        template: of the questions' words (`plait.data.base.wording`); None: as they are.

    Raises:
        DataError: a sample that lacks one of them, by its row.
    """
    pictures, questions, answers = [], [], []
    for sample in samples:
        given = stated_answers(sample)
        for what, there in (
            ("picture", sample.image),
            ("question", sample.texts),
            ("answer", given),
        ):
            if not there:
                raise DataError(f"this question has no {what}", path=sample.where)
        assert sample.image is not None
        pictures.append(sample.image)
        questions.append(text_of(sample, template))
        answers.append(tuple(given))
    return pictures, questions, answers


def predict(
    model: FusionModel,
    pictures: Sequence[MediaRef],
    questions: Sequence[str],
    *,
    change: Change | None = None,
    title: str | None = None,
) -> list[str]:
    """The likeliest answer to each question; ``title`` shows a progress bar."""
    labels = model.labels("answer")
    found: list[str] = []
    batches = answer_logits(model, pictures, questions, change=change)
    total = -(-len(pictures) // QUESTIONS_AT_ONCE)
    for logits in batches if title is None else track(batches, title, total=total):
        found += [labels[i] for i in logits.argmax(dim=1).tolist()]
    return found
