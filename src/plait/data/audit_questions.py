"""Questions about pictures: without a picture, asked twice, answered in two ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from plait.core.errors import shown
from plait.data.answers import given_answers
from plait.data.audit_rows import Audited, Finding
from plait.data.equal_texts import normalised
from plait.data.sample import Sample


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


def question_findings(audited: Audited) -> Iterator[Finding]:
    """Questions no model can learn from, or learn the same from twice."""
    first: dict[tuple[str, str], int] = {}
    for number, sample in enumerate(audited.samples):
        if not is_question(sample):
            continue
        place = audited.places[number][0]
        if sample.image is None:
            detail = "the question has no picture: name one, or leave the row out"
            yield Finding("question-without-image", "error", *place, sample.id, detail)
        question = normalised(str(sample.labels["question"]))
        other = first.setdefault((sample.group_key, question), number)
        if other == number:
            continue
        before = audited.samples[other]
        answers = [set(given_answers(one)) for one in (before, sample)]
        if all(answers) and not answers[0] & answers[1]:
            said, says = (" or ".join(map(shown, sorted(one)[:3])) for one in answers)
            detail = f"the answer is {says} here, and {said} for [{before.id}]: same question, same picture"
            yield Finding("contradicting-answer", "warning", *place, sample.id, detail)
        else:
            detail = f"[{before.id}] asks the same about the same picture"
            yield Finding("duplicate-question", "warning", *place, sample.id, detail)
