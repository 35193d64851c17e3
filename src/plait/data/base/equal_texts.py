"""Texts that read the same: which pictures are right for which texts, and who is whose positive.

A text is right for a picture when the picture's group has that text or one that reads the same.
That is a relation between groups and texts and no equivalence: two pictures that share one caption
of five share none of the other four. A loss needs an equivalence; its ids are made of the one text
that each row of a batch shows (`joined`).

Legend: n pictures, m texts, G groups of pictures that show the same thing, B rows of a batch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Int64, Shaped

EqualTexts = Literal["same", "apart"]
"""Whether texts that read the same are one text, or each is its own picture's alone."""

Places = slice | Int[np.ndarray, " places"]


def normalised(text: str) -> str:
    """Without case, punctuation, width and spacing: texts that read the same compare equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_LETTERS).split()) or " ".join(folded.split())


class _Letters(dict[int, str]):
    """A table of `str.translate` that learns each letter when it is first met."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        self[code] = " " if unicodedata.category(letter)[0] in "PZC" else letter
        return self[code]


_LETTERS = _Letters()


def text_numbers(texts: Iterable[str]) -> Int64[np.ndarray, " m"]:
    """(m,) equal where texts read the same, counted by first appearance."""
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(normalised(text), len(numbers)) for text in texts], np.int64
    )


@dataclass(frozen=True)
class RightAnswers:
    """Which of n pictures and m texts are right answers of one another.

    Attributes:
        group: (n,) 0 to G - 1, equal where pictures show the same thing.
        label: (m,) the group of a text that no other group has, else G + the number of the text,
            equal where texts read the same.
        groups: G.
        pair_label: (P,) every text that several groups have, once for each of them, in order.
        pair_group: (P,) the group that has it.
    """

    group: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " m"]
    groups: int
    pair_label: Int64[np.ndarray, " P"]
    pair_group: Int64[np.ndarray, " P"]

    @classmethod
    def of(
        cls,
        groups: Shaped[np.ndarray, " n"],
        owner: Int[np.ndarray, " m"],
        words: Int[np.ndarray, " m"] | None = None,
    ) -> RightAnswers:
        """The relation of a set.

        Args:
            groups: equal where pictures show the same thing.
            owner: for each text, the row of its picture.
            words: equal where texts read the same; None: every text is its own group's alone.
        """
        names, group = np.unique(groups, return_inverse=True)
        own, count, none = group[owner], len(names), np.zeros(0, np.int64)
        if words is None:
            return cls(group, own, count, none, none)
        _, word = np.unique(words, return_inverse=True)
        pair_word, pair_group = np.divmod(np.unique(word * count + own), count)
        several = np.bincount(pair_word) > 1
        number = count + np.cumsum(several) - 1
        kept = several[pair_word]
        label = np.where(several[word], number[word], own)
        return cls(group, label, count, number[pair_word[kept]], pair_group[kept])

    def among(self, columns: Bool[np.ndarray, " m"]) -> RightAnswers:
        """The same pictures with some of the texts; who has which text stays as it was."""
        return replace(self, label=self.label[columns])

    def wrong(self, rows: Places, columns: Places) -> Bool[np.ndarray, "rows columns"]:
        """Which pictures and texts do not belong together."""
        group, label = self.group[rows], self.label[columns]
        wrong: np.ndarray = group[:, None] != label[None, :]
        shared = np.flatnonzero(label >= self.groups)
        if len(shared):
            names, place = np.unique(label[shared], return_inverse=True)
            wrong[:, shared] = ~self._have(group, names)[:, place]
        return wrong

    def right_pairs(
        self, rows: Int[np.ndarray, " pairs"], columns: Int[np.ndarray, " pairs"]
    ) -> Bool[np.ndarray, " pairs"]:
        """Whether picture and text of each pair belong together."""
        group, label = self.group[rows], self.label[columns]
        known = self.pair_label * self.groups + self.pair_group
        right: np.ndarray = (group == label) | np.isin(label * self.groups + group, known)
        return right

    def asked(self) -> Bool[np.ndarray, " n"]:
        """Which pictures have a right answer among the texts."""
        shared = self.pair_group[np.isin(self.pair_label, self.label)]
        found: np.ndarray = np.isin(self.group, self.label) | np.isin(self.group, shared)
        return found

    def right_count(self) -> int:
        """How many pairs of a picture and a text belong together."""
        return sum(len(rows) * len(columns) for rows, columns in self.blocks())

    def blocks(self) -> Iterator[tuple[Int[np.ndarray, " r"], Int[np.ndarray, " c"]]]:
        """Pictures and texts that all belong together; every right pair is in one block."""
        order = np.argsort(self.group, kind="stable")
        starts = np.searchsorted(self.group[order], np.arange(self.groups + 1))
        of_label = np.argsort(self.label, kind="stable")
        labels, firsts = np.unique(self.label[of_label], return_index=True)
        ends = np.append(firsts[1:], len(self.label))
        for label, first, end in zip(labels.tolist(), firsts.tolist(), ends.tolist(), strict=True):
            rows = [order[starts[group] : starts[group + 1]] for group in self._owners(label)]
            yield np.concatenate(rows), of_label[first:end]

    def _owners(self, label: int) -> list[int]:
        if label < self.groups:
            return [label]
        low, high = np.searchsorted(self.pair_label, [label, label + 1])
        owners: list[int] = self.pair_group[low:high].tolist()
        return owners

    @cached_property
    def _by_group(self) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " ends"]]:
        """Shared texts in the order of the groups that have them, and where each group's begin."""
        order = np.argsort(self.pair_group, kind="stable")
        starts = np.searchsorted(self.pair_group[order], np.arange(self.groups + 1))
        return self.pair_label[order], starts

    def _have(
        self, group: Int64[np.ndarray, " r"], names: Int64[np.ndarray, " k"]
    ) -> Bool[np.ndarray, "r k"]:
        """Which of some shared texts the groups have."""
        labels, starts = self._by_group
        distinct, row = np.unique(group, return_inverse=True)
        counts = starts[distinct + 1] - starts[distinct]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        had = labels[np.repeat(starts[distinct], counts) + within]
        place = np.minimum(np.searchsorted(names, had), len(names) - 1)
        hit = names[place] == had
        table = np.zeros((len(distinct), len(names)), bool)
        table[np.repeat(np.arange(len(distinct)), counts)[hit], place[hit]] = True
        return table[row]


def joined(groups: Int[np.ndarray, " B"], words: Int[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
    """(B,) equal where a chain of equal groups and equal texts joins two rows of a batch.

    Args:
        groups: of the rows' samples.
        words: equal where the rows' texts read the same.

    Returns:
        The smallest group of each chain.
    """
    numbers = [np.unique(one, return_inverse=True)[1] for one in (words, groups)]
    ids = np.asarray(groups, dtype=np.int64)
    while True:
        before = ids
        for number in numbers:
            least = np.full(int(number.max(initial=-1)) + 1, np.iinfo(np.int64).max)
            np.minimum.at(least, number, ids)
            ids = least[number]
        if np.array_equal(ids, before):
            return ids
