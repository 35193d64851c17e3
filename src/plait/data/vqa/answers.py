"""The answers that a model of questions about pictures chooses from, and what each is worth.

Shape legend: A answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32

from plait.core.errors import DataError, shown
from plait.data.base.sample import Sample
from plait.data.vqa.normalise import NORMALISER, normalise


def score(count: int, people: int, *, exact: bool = False) -> float:
    """What an answer is worth that ``count`` of ``people`` gave, from 0 to 1.

    min(1, count / 3), as the published systems train with (Teney et al. 2018, section 3.6). With
    ``exact`` the accuracy that the answer gets (Antol et al. 2015): each person is left out in
    turn, and min(1, others who gave it / 3) averaged: of ten 0.3, 0.6, 0.9, 1. The one answer of
    a set with one person a question is worth 1 either way.
    """
    if not 0 <= count <= people:
        raise ValueError(f"{count} of {people} people")
    if people == 1 or count == 0:
        return float(count)
    if not exact:
        return min(1.0, count / 3)
    said, others = min(1.0, (count - 1) / 3), min(1.0, count / 3)
    return (count * said + (people - count) * others) / people


def stated_answers(sample: Sample) -> tuple[str, ...]:
    """What people answered to a sample's question, as they wrote it; () when nobody did.

    Raises:
        DataError: the answers are no strings.
    """
    answers = sample.labels.get("answers")
    if answers is None:
        answer = sample.labels.get("answer")
        answers = () if answer is None else (answer,)
    if isinstance(answers, str):
        answers = (answers,)
    for answer in answers:
        if not isinstance(answer, str):
            kind = type(answer).__name__
            raise DataError(
                f"{sample.where}: an answer must be a string, not {kind} {shown(answer)}: write the "
                "answers as a list of strings"
            )
    return tuple(answers)


def given_answers(sample: Sample) -> tuple[str, ...]:
    """`stated_answers`, normalised."""
    return tuple(map(normalise, stated_answers(sample)))


def usual_answer(sample: Sample) -> str | None:
    """The most frequent normalised answer, of equally frequent ones the first; None without any."""
    answers = given_answers(sample)
    return Counter(answers).most_common(1)[0][0] if answers else None


def check_question(sample: Sample) -> None:
    """Sees that a sample is a question about a picture.

    Raises:
        DataError: it has no picture, or no text to be the question.
    """
    if sample.image is None:
        raise DataError(
            f"{sample.where}: the question [{sample.id}] has no picture: name one, or leave the "
            "row out"
        )
    if not sample.texts:
        raise DataError(f"{sample.where}: the sample [{sample.id}] has no question")


@dataclass(frozen=True)
class AnswerSet:
    """The answers to choose from, the most frequent first.

    Attributes:
        answers: normalised, all different.
        counts: how many training questions have each as their usual answer.
        normaliser: the version of the rules they were made with.
    """

    answers: tuple[str, ...]
    counts: tuple[int, ...]
    normaliser: str = NORMALISER
    _rows: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.answers:
            raise DataError("an answer set needs at least one answer")
        if len(self.answers) != len(self.counts):
            raise DataError(f"{len(self.answers)} answers, but {len(self.counts)} counts")
        rows = {answer: row for row, answer in enumerate(self.answers)}
        if len(rows) != len(self.answers):
            twice = next(one for one, count in Counter(self.answers).items() if count > 1)
            raise DataError(f"the answer set has {shown(twice)} twice")
        object.__setattr__(self, "_rows", rows)

    def __len__(self) -> int:
        return len(self.answers)

    def row(self, answer: str) -> int | None:
        """The row of an answer after the normaliser; None when it is not in the set."""
        return self._rows.get(normalise(answer))

    def targets(
        self, sample: Sample, *, exact: bool = False, strict: bool = False
    ) -> Float32[np.ndarray, " A"]:
        """What each answer of the set is worth for a sample (see `score`).

        Args:
            sample: a question with its answers.
            exact: as in `score`.
            strict: an error when none of the sample's answers is in the set; else all zero.

        Raises:
            DataError: the sample has no picture or question, or with ``strict`` no known answer.
        """
        check_question(sample)
        counts = Counter(given_answers(sample))
        people = counts.total()
        result = np.zeros(len(self), np.float32)
        for answer, count in counts.items():
            row = self._rows.get(answer)
            if row is not None:
                result[row] = score(count, people, exact=exact)
        if strict and not result.any():
            self._refuse(sample, counts)
        return result

    def label(self, sample: Sample, *, strict: bool = False) -> int:
        """The row of a sample's usual answer; -100 (no loss looks there) when it is not in the set.

        Raises:
            DataError: as `targets`.
        """
        check_question(sample)
        usual = usual_answer(sample)
        row = None if usual is None else self._rows.get(usual)
        if row is None and strict:
            self._refuse(sample, {} if usual is None else {usual: 1})
        return -100 if row is None else row

    def _refuse(self, sample: Sample, answers: Mapping[str, int]) -> None:
        said = " or ".join(map(repr, list(answers)[:3])) or "no answer"
        shown = ", ".join(map(repr, self.answers[:5])) + (", ..." if len(self) > 5 else "")
        raise DataError(
            f"{sample.where}: the question [{sample.id}] has {said}, which is not among the "
            f"{len(self)} answers to choose from ({shown}): make the set from data that has it"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for `from_json`."""
        return {
            "normaliser": self.normaliser,
            "answers": list(self.answers),
            "counts": list(self.counts),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AnswerSet:
        """The set that `to_json` wrote.

        Raises:
            DataError: a key is missing, or the set was made by other rules.
        """
        missing = [key for key in ("normaliser", "answers", "counts") if key not in value]
        if missing:
            raise DataError(f"the answer set has no {shown(missing[0])}")
        if value["normaliser"] != NORMALISER:
            raise DataError(
                f"the answer set was made with normaliser {value['normaliser']}, this is "
                f"{NORMALISER}: make it again from its data"
            )
        return cls(tuple(value["answers"]), tuple(value["counts"]))


def answer_set(
    samples: Iterable[Sample], *, min_count: int = 1, top_k: int | None = None
) -> AnswerSet:
    """The usual answers of training questions, those of most questions first.

    For VQA v2 ``min_count=9`` gives the customary 3,129 (with the validation questions).

    Args:
        samples: training questions; those without an answer are passed over.
        min_count: questions that an answer must be the usual one of.
        top_k: no more answers than this; None keeps all.

    Raises:
        DataError: no answer is frequent enough, or the limits make no sense.
    """
    if min_count < 1 or (top_k is not None and top_k < 1):
        raise DataError(f"min_count {min_count} and top_k {top_k} must be at least 1")
    counts: Counter[str] = Counter()
    questions = 0
    for sample in samples:
        usual = usual_answer(sample)
        questions += 1
        if usual is not None:
            counts[usual] += 1
    kept = [(one, count) for one, count in counts.items() if count >= min_count]
    if not kept:
        largest = max(counts.values(), default=0)
        raise DataError(
            f"no answer to choose from: {questions} training samples have {len(counts)} different "
            f"answers, the most frequent {largest} times, and min_count is {min_count}"
        )
    kept = sorted(kept, key=lambda one: (-one[1], one[0]))[:top_k]
    return AnswerSet(tuple(one for one, _ in kept), tuple(count for _, count in kept))


def is_question(sample: Sample) -> bool:
    """Whether the sample's text is a question to answer, not a caption."""
    return "question" in sample.labels


def describe(samples: Sequence[Sample]) -> dict[str, Any]:
    """What an overview says of questions, as plain JSON values; {} where there are none.

    Returns:
        ``questions``, ``pictures`` they are about, ``answered`` ones, ``different answers`` after
        the normaliser, and ``most frequent`` five of them.
    """
    questions = [sample for sample in samples if is_question(sample)]
    if not questions:
        return {}
    answers = [given_answers(sample) for sample in questions]
    counts = Counter(answer for given in answers for answer in given)
    return {
        "questions": len(questions),
        "pictures": len({sample.group_key for sample in questions}),
        "answered": sum(bool(given) for given in answers),
        "different answers": len(counts),
        "most frequent": [answer for answer, _ in counts.most_common(5)],
    }
