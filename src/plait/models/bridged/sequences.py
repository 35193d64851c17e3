"""From prompts with ``<image>`` in them to token ids, with a place for every token of a picture.

Shape legend: B sequences, N positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from plait.core.errors import DataError
from plait.language.base import LanguageModel

PLACEHOLDER = "<image>"
IGNORED = -100
"""Label of a position that is not learned."""


@dataclass(frozen=True)
class Sequences:
    """Padded sequences.

    Attributes:
        ids: (B, N); `Writer.placeholder` where a picture's token goes.
        mask: (B, N) False at padding.
        labels: (B, N) the same ids where they are learned, else -100.
    """

    ids: Int64[Tensor, "B N"]
    mask: Bool[Tensor, "B N"]
    labels: Int64[Tensor, "B N"]


class Writer:
    """Turns prompts and what should follow them into ids, and ids back into text.

    Args:
        language: for its tokenizer, its start and its end.
        picture_tokens: positions that one ``<image>`` takes.
        limit: the most positions of a sequence; None: the model's context.
    """

    def __init__(
        self, language: LanguageModel, picture_tokens: int, limit: int | None = None
    ) -> None:
        self.tokenizer = language.preprocess.tokenizer
        self.pad = language.preprocess.pad_id
        self.start, self.end = language.start, language.end
        self.placeholder = language.vocabulary  # one past the table: never among what it writes
        self.picture_tokens = picture_tokens
        self.limit = limit or language.context

    def ids(self, text: str) -> list[int]:
        """A text's ids without start and end; each ``<image>`` as many placeholders as it takes."""
        found: list[int] = []
        for number, piece in enumerate(text.split(PLACEHOLDER)):
            if number:
                found += [self.placeholder] * self.picture_tokens
            if piece:
                found += self.tokenizer.encode(piece, add_special_tokens=False).ids
        return found

    def prompt(self, text: str, *, pictures: int, where: str | None = None) -> list[int]:
        """The ids of a prompt.

        Raises:
            DataError: it has another number of ``<image>`` than there are pictures, or leaves no
                room to write in; ``where`` it comes from is told.
        """
        places = text.count(PLACEHOLDER)
        if places != pictures:
            raise DataError(
                f"the prompt {short(text)!r} has {places} {PLACEHOLDER} and there are {pictures} "
                f"pictures: write {PLACEHOLDER} once for each",
                path=where,
            )
        found = [*([] if self.start is None else [self.start]), *self.ids(text)]
        self.check_length(len(found) + 1, text, where)
        return found

    def check_length(self, length: int, text: str, where: str | None = None) -> None:
        """Sees that so many positions fit the language model.

        Raises:
            DataError: they don't.
        """
        if self.limit is not None and length > self.limit:
            raise DataError(
                f"the prompt {short(text)!r} takes {length} positions with {self.picture_tokens} for "
                f"each picture, and the language model has {self.limit}: shorten it",
                path=where,
            )

    def example(
        self, prompt: str, target: str, *, pictures: int, where: str | None = None
    ) -> tuple[list[int], list[int]]:
        """(ids, labels) of a prompt and what should follow it, with the end; cut to the limit."""
        before = self.prompt(prompt, pictures=pictures, where=where)
        after = [*self.ids(target), self.end]
        ids = (before + after)[: self.limit]
        return ids, ([IGNORED] * len(before) + after)[: self.limit]

    def text(self, ids: Sequence[int]) -> str:
        """What was written, up to the end."""
        kept = list(ids)
        if self.end in kept:
            kept = kept[: kept.index(self.end)]
        written: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return written.strip()

    def padded(
        self,
        rows: Sequence[Sequence[int]],
        labels: Sequence[Sequence[int]] | None = None,
        *,
        left: bool = False,
    ) -> Sequences:
        """Rows of ids side by side; ``left`` puts the padding first, as writing needs it."""
        width = max(1, max(map(len, rows), default=1))
        ids = np.full((len(rows), width), self.pad, np.int64)
        mask = np.zeros((len(rows), width), np.bool_)
        learned = np.full((len(rows), width), IGNORED, np.int64)
        for number, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[number, place], mask[number, place] = row, True
            if labels is not None:
                learned[number, place] = labels[number]
        return Sequences(*map(torch.from_numpy, (ids, mask, learned)))


def short(text: str, longest: int = 60) -> str:
    """A text's beginning, for messages."""
    return text if len(text) <= longest else text[:longest] + "..."
