"""What the samples of fusion tasks should be answered with.

Shape legend: n samples, B rows, A answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from plait.core.errors import DataError
from plait.data.base.sample import Sample
from plait.data.vqa.answers import AnswerSet, answer_set, check_question
from plait.training.batches.rows import Rows
from plait.training.recipe.schema import Recipe
from plait.training.tasks.fusion_tasks import ANSWER, LABEL, SCORES


@dataclass(frozen=True)
class Known:
    """What heads choose from, learnt from the training samples.

    Attributes:
        answers: of ``answer`` tasks.
        classes: of ``classify`` tasks, sorted.
        label: which of the samples' labels holds the class.
    """

    answers: AnswerSet | None = None
    classes: tuple[str, ...] = ()
    label: str = "label"

    @property
    def labels(self) -> dict[str, Sequence[str]]:
        """By head, what its logits stand for."""
        found: dict[str, Sequence[str]] = {}
        if self.answers is not None:
            found["answer"] = self.answers.answers
        if self.classes:
            found["classify"] = self.classes
        return found


def known_of(recipe: Recipe, samples: Sequence[Sample]) -> Known:
    """The answers and classes of the training samples, as far as a recipe's tasks need them.

    Raises:
        DataError: no sample has an answer or a class.
    """
    tasks = [task for stage in recipe.stages for task in stage.tasks]
    sizes = [task.answers for task in tasks if task.objective == "answer"]
    names = sorted({task.label for task in tasks if task.objective == "classify"})
    if len(names) > 1:
        raise DataError(f"one kind of class at a time: the tasks name {' and '.join(names)}")
    answers = answer_set(samples, top_k=max(sizes)) if sizes else None
    if not names:
        return Known(answers)
    counts = Counter(
        str(sample.labels[names[0]])
        for sample in samples
        if sample.labels.get(names[0]) is not None
    )
    if len(counts) < 2:
        have = ", ".join(sorted({key for sample in samples for key in sample.labels})) or "none"
        raise DataError(
            f"classify needs at least two classes: {len(counts)} found under the label "
            f"{names[0]!r} (labels there: {have})"
        )
    return Known(answers, tuple(sorted(counts)), names[0])


class Targets:
    """What the rows of a split should be answered with.

    Args:
        samples: of the split.
        known: what heads choose from.

    Raises:
        DataError: a sample that is no question about a picture, by its row.
    """

    def __init__(self, samples: Sequence[Sample], known: Known) -> None:
        self.samples, self.known = samples, known
        self.answer = self.label = None
        if known.answers is not None:
            for sample in samples:
                check_question(sample)
            self.answer = torch.tensor([known.answers.label(sample) for sample in samples])
        if known.classes:
            row = {name: number for number, name in enumerate(known.classes)}
            given: list[Any] = [sample.labels.get(known.label) for sample in samples]
            self.label = torch.tensor(
                [-100 if one is None else row.get(str(one), -100) for one in given]
            )

    def counts(self) -> dict[str, int]:
        """Rows that have each task's target; of tasks without one, all rows."""
        found: dict[str, int] = {}
        for name, rows in (("answer", self.answer), ("classify", self.label)):
            if rows is not None:
                found[name] = int((rows >= 0).sum())
        return found

    def __call__(self, rows: Rows) -> Mapping[str, torch.Tensor]:
        """`SCORES` (B, A), `ANSWER` (B,) and `LABEL` (B,) of some rows, as far as known."""
        chosen = torch.from_numpy(rows.sample)
        found: dict[str, torch.Tensor] = {}
        if self.known.answers is not None and self.answer is not None:
            scores = [self.known.answers.targets(self.samples[i]) for i in rows.sample]
            found[SCORES] = torch.from_numpy(np.stack(scores))
            found[ANSWER] = self.answer[chosen]
        if self.label is not None:
            found[LABEL] = self.label[chosen]
        return found
