"""Questions about pictures: without a picture, asked twice, answered in two ways."""

from __future__ import annotations

from collections.abc import Iterator

from plait.core.errors import shown
from plait.data.audit.rows import Audited, Finding
from plait.data.base.equal_texts import normalised
from plait.data.vqa.answers import given_answers, is_question


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
