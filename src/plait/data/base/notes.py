"""What a user should know of a data set, in words and counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

EXAMPLES = 3
OTHER = "note"  # the kind of a note that is words alone


class Note(str):
    """A note: its words, for whoever wants a string, with what a program asks of it.

    Attributes:
        kind: one word for counting, e.g. ``undecoded-picture``.
        total: of the files or rows that it tells of.
        examples: names of a few of them.
    """

    kind: str
    total: int
    examples: tuple[str, ...]

    def __new__(cls, message: str, kind: str, examples: Sequence[str]) -> Note:
        """Of the kind ``kind``; the examples are all that it tells of, a few are kept."""
        note = super().__new__(cls, message)
        note.kind, note.total, note.examples = kind, len(examples), tuple(examples[:EXAMPLES])
        return note

    def __reduce__(self) -> tuple[Any, ...]:  # a copy has the same total, of few examples
        return _restored, (str(self), self.kind, self.total, self.examples)


def _restored(message: str, kind: str, total: int, examples: tuple[str, ...]) -> Note:
    note = Note(message, kind, examples)
    note.total = total
    return note


def as_json(note: str) -> dict[str, Any]:
    """``{kind, count, message, examples}``."""
    if isinstance(note, Note):
        return {
            "kind": note.kind,
            "count": note.total,
            "message": str(note),
            "examples": list(note.examples),
        }
    return {"kind": OTHER, "count": 1, "message": note, "examples": []}


def with_notes(problem: str, notes: Iterable[str]) -> str:
    """The words of an error, with the counted notes that may tell why it came to it."""
    told = [note for note in notes if isinstance(note, Note)]
    return "; ".join([problem, *told])


def names(examples: Sequence[str]) -> str:
    """A few names, and that there are more."""
    more = ", ..." if len(examples) > EXAMPLES else ""
    return ", ".join(examples[:EXAMPLES]) + more
