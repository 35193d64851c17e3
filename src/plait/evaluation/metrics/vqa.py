"""Accuracy of answers to questions about pictures, as the VQA challenge counts it.

Legend: n questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from plait.core.errors import DataError
from plait.data.vqa.normalise import NORMALISER, normalise, spaced
from plait.evaluation.metrics.retrieval import bootstrap_interval

__all__ = ["NORMALISER", "normalise", "vqa_accuracy", "vqa_figures"]


def vqa_accuracy(
    predicted: Sequence[str], answers: Sequence[Sequence[str]]
) -> Float64[np.ndarray, " n"]:
    """How right each answer is, from 0 to 1.

    Several people answered (ten in VQA v2; Antol et al. 2015, section 3.4, and Goyal et al. 2017):
    each is left out in turn, and min(1, how many of the others said the same / 3) averaged. As in
    the official evaluation, both sides pass the normaliser only when the people's answers differ
    among themselves; when they all say the same, spelling counts. One answer: exact match after
    the normaliser. With two or three people even their answer gets less than 1.

    Args:
        predicted: n answers.
        answers: for each question what people answered, at least one.

    Raises:
        DataError: other numbers of answers than questions, a question nobody answered, or
            something that is no string.
    """
    if len(predicted) != len(answers):
        raise DataError(f"{len(predicted)} predicted answers, but {len(answers)} questions")
    return np.array(
        [_right(number, *pair) for number, pair in enumerate(zip(predicted, answers), 1)],
        dtype=np.float64,
    )


def vqa_figures(
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    *,
    groups: Sequence[str | int] | Shaped[np.ndarray, " n"] | None = None,
    question_types: Sequence[str | None] | None = None,
    answer_types: Sequence[str | None] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """`vqa_accuracy` in percent, with 95% interval, and for each type of question and answer.

    Args:
        predicted: n answers.
        answers: for each question what people answered.
        groups: the picture of each question; the interval draws whole pictures, since questions
            about one picture are not independent. None: every question by itself.
        question_types: such as ``what color``; None for a question without.
        answer_types: ``yes/no``, ``number``, ``other`` in VQA v2.
        bootstrap: replicates of the percentile interval; 0 leaves the intervals out.
        seed: of the bootstrap.

    Returns:
        ``{"accuracy", "accuracy_low", "accuracy_high", "questions", "normaliser",
        "by_question_type": {type: {"accuracy", ..., "questions"}}, "by_answer_type": {...}}``;
        the last two only when types are given.

    Raises:
        DataError: as `vqa_accuracy`, no question at all, or lists of different lengths.
    """
    right = vqa_accuracy(predicted, answers)
    if not len(right):
        raise DataError("there is no question to judge")
    given = {"groups": groups, "question_types": question_types, "answer_types": answer_types}
    for name, values in given.items():
        if values is not None and len(values) != len(right):
            raise DataError(f"{len(right)} questions, but {len(values)} {name}")
    _, cluster = np.unique(
        np.arange(len(right)) if groups is None else np.array([str(one) for one in groups]),
        return_inverse=True,
    )
    every = np.ones(len(right), dtype=bool)
    result = _summary(right, cluster, every, bootstrap, seed)
    result["normaliser"] = NORMALISER
    for key, types in (("by_question_type", question_types), ("by_answer_type", answer_types)):
        if types is not None:
            names = np.array([name or "" for name in types], dtype=object)
            result[key] = {
                name: _summary(right, cluster, names == name, bootstrap, seed)
                for name in sorted({name for name in types if name})
            }
    return result


def _right(number: int, predicted: str, answers: Sequence[str]) -> float:
    if isinstance(answers, str) or not answers:
        raise DataError(
            f"question {number} has no list of answers to compare with"
            + ("" if isinstance(answers, str) else ": leave unanswered questions out")
        )
    for one in (predicted, *answers):
        if not isinstance(one, str):
            raise DataError(f"question {number}: {one!r} is no string but {type(one).__name__}")
    people = [spaced(one) for one in answers]
    said = spaced(predicted)
    if len(people) == 1 or len(set(people)) > 1:
        said, people = normalise(said), [normalise(one) for one in people]
    same = [one == said for one in people]
    if len(people) == 1:
        return float(same[0])
    matches = sum(same)
    return sum(min(1.0, (matches - own) / 3) for own in same) / len(people)


def _summary(
    right: np.ndarray, cluster: np.ndarray, chosen: np.ndarray, bootstrap: int, seed: int
) -> dict[str, Any]:
    values = right[chosen]
    result: dict[str, Any] = {"accuracy": float(100 * values.mean())}
    interval = bootstrap_interval(values[:, None], cluster[chosen], replicates=bootstrap, seed=seed)
    if interval is not None:
        result["accuracy_low"] = float(100 * interval[0][0])
        result["accuracy_high"] = float(100 * interval[1][0])
    result["questions"] = len(values)
    return result
