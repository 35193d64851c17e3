"""Which rows make up which batch: a pure function of seed, epoch and position.

So a resumed run finds its place without replaying anything, and every process of a distributed
run takes its share of the same global batch.

Legend: n samples, m texts, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from plait.core.random import permutation, uniform

Texts = Literal["one", "all", "first"]


@dataclass(frozen=True)
class Rows:
    """The rows of one batch.

    Attributes:
        sample: (B,) positions in the data set.
        text: (B,) positions among all texts, counted through the data set.
        slot: (B,) which augmented version of the sample's cached features.
        epoch: the pass they belong to.
    """

    sample: Int[np.ndarray, " B"]
    text: Int[np.ndarray, " B"]
    slot: Int[np.ndarray, " B"]
    epoch: int

    def share(self, rank: int, world: int) -> Rows:
        """The part of one of ``world`` processes: consecutive rows, equally many each."""
        part = self.part(rank, world)
        return Rows(self.sample[part], self.text[part], self.slot[part], self.epoch)

    def part(self, rank: int, world: int) -> slice:
        """Which rows are that part."""
        size = len(self.sample) // world
        return slice(rank * size, (rank + 1) * size)


class RowPlan:
    """The order of rows, epoch by epoch.

    The last rows of an epoch that don't fill a batch are left out (other ones each epoch). A data
    set smaller than one batch is one batch.

    Args:
        text_counts: (n,) how many texts each sample has, each at least 1.
        texts: ``one`` text of a sample an epoch, each in its turn, ``all`` (a row each), or the ``first``.
        batch_size: rows of a global batch.
        seed: of order, texts and slots.
        slots: versions of each sample to draw from.
        world: processes; a batch is cut to a multiple of it.
        together: (n,) samples with the same number come one after the other; None: each alone.
        repeats: (n,) how often each sample comes in an epoch, with its next text each time; None: once.
    """

    def __init__(
        self,
        text_counts: Sequence[int] | Int[np.ndarray, " n"],
        *,
        texts: Texts,
        batch_size: int,
        seed: int,
        slots: int = 1,
        world: int = 1,
        together: Int[np.ndarray, " n"] | None = None,
        repeats: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        self.together = together
        self.counts = np.asarray(text_counts, dtype=np.int64)
        assert len(self.counts) and self.counts.min() >= 1, "every sample needs a text"
        self.first = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        self.texts, self.seed, self.slots = texts, seed, slots
        drawn = uniform(len(self.counts), seed, "text") * self.counts
        self.start = drawn.astype(np.int64)  # each text of a sample in its turn
        self.repeats = np.ones_like(self.counts) if repeats is None else repeats
        times = self.repeats * self.counts if texts == "all" else self.repeats
        self.owner = np.repeat(np.arange(len(times)), times)
        self.rows = len(self.owner)
        # The how manieth row of its sample each is, within an epoch.
        self.turn = np.arange(self.rows) - np.repeat(np.cumsum(times) - times, times)
        size = min(batch_size, self.rows)
        self.batch_size = size - size % world
        assert self.batch_size, "fewer rows than processes"
        self.steps = self.rows // self.batch_size
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, epoch: int, number: int) -> Rows:
        """Batch ``number`` (from 0) of an epoch."""
        whole = self._epoch(epoch)
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return Rows(whole.sample[part], whole.text[part], whole.slot[part], epoch)

    def _shuffled(self, epoch: int) -> Rows:
        order = self._order(epoch)
        sample = self.owner[order]
        text = self.first[sample]
        if self.texts != "first":
            turn = self.turn
            if self.texts == "one":
                turn = (self.start + epoch * self.repeats)[self.owner] + turn
            text = text + (turn % self.counts[self.owner])[order]
        slot = (uniform(self.rows, self.seed, "slot", epoch) * self.slots).astype(np.int64)
        return Rows(sample, text, slot, epoch)

    def _order(self, epoch: int) -> Int[np.ndarray, " rows"]:
        order = permutation(self.rows, self.seed, "order", epoch)
        if self.together is None:
            return order
        numbers = self.together[self.owner]
        place = permutation(int(numbers.max()) + 1, self.seed, "together", epoch)
        return order[np.argsort(place[numbers[order]], kind="stable")]


class InOrder:
    """Every sample once, with its first text, in the order of the data; the last batch is smaller.

    Args:
        text_counts: (n,) how many texts each sample has.
        batch_size: rows of a batch.
    """

    def __init__(self, text_counts: Sequence[int] | Int[np.ndarray, " n"], batch_size: int) -> None:
        counts = np.asarray(text_counts, dtype=np.int64)
        self.first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self.batch_size = batch_size
        self.steps = -(-len(counts) // batch_size)

    def batch(self, epoch: int, number: int) -> Rows:
        """Batch ``number`` (from 0); every epoch is the same."""
        start = number * self.batch_size
        sample = np.arange(start, min(start + self.batch_size, len(self.first)))
        return Rows(sample, self.first[sample], np.zeros_like(sample), epoch)


@runtime_checkable
class Plan(Protocol):
    """Which rows make up which batch: `RowPlan`, `InOrder`."""

    @property
    def steps(self) -> int:
        """Batches of an epoch."""

    def batch(self, epoch: int, number: int) -> Rows:
        """Batch ``number`` (from 0) of an epoch."""
