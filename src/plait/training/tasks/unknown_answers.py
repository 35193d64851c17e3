"""Questions that teach nothing: their usual answer is not among those to choose from, or is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plait.core.errors import DataError
from plait.data.base.sample import Sample
from plait.data.vqa.answers import AnswerSet, usual_answer


@dataclass(frozen=True)
class Unknown:
    """The questions of a split that teach nothing.

    Attributes:
        outside: those whose usual answer is not in the answer set, with that answer.
        unanswered: how many have no answer at all.
        questions: how many the split has.
    """

    outside: Sequence[tuple[Sample, str]]
    unanswered: int
    questions: int

    @classmethod
    def among(cls, samples: Sequence[Sample], answers: AnswerSet) -> Unknown:
        """Those of a split."""
        usual = [(sample, usual_answer(sample)) for sample in samples]
        outside = [
            (sample, answer)
            for sample, answer in usual
            if answer is not None and answers.label(sample) < 0
        ]
        unanswered = sum(answer is None for _, answer in usual)
        return cls(outside, unanswered, len(samples))

    def notes(self, split: str, answers: AnswerSet) -> list[str]:
        """One sentence for each kind that there is."""
        found = []
        if self.outside:
            found.append(
                f"{len(self.outside)} of {self.questions} {split} questions have a usual answer that "
                f"is not among the {len(answers)} to choose from (tasks.answers)."
            )
        if self.unanswered:
            found.append(f"{self.unanswered} of {self.questions} {split} questions have no answer.")
        return found

    def require_none(self, split: str, training: Sequence[Sample], answers: AnswerSet) -> None:
        """Sees that every usual answer of a split can be chosen.

        Args:
            split: its name.
            training: the samples that the answer set was made of.
            answers: the set.

        Raises:
            DataError: the first that cannot, by its row.
        """
        if not self.outside:
            return
        sample, answer = self.outside[0]
        known = {usual_answer(one) for one in training} - {None}
        mend = (
            f"raise answers to {len(known)}"
            if answer in known
            else "no training question has it, so add one that does"
        )
        raise DataError(
            f"{sample.where}: the question [{sample.id}] has the usual answer {answer!r}, which is "
            f"not among the {len(answers)} to choose from; {len(self.outside)} of {self.questions} "
            f"{split} questions are such: {mend}, or let them be with unknown_answers: count"
        )
