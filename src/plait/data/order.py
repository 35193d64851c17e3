"""Which rows an epoch holds and in what order: pure functions of (seed, epoch).

A row is one image with one text. Nothing here decodes anything, and nothing remembers what was
drawn before, so that an epoch can be entered at any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int64

from plait.data.random import permutation
from plait.data.sample import Sample

Texts = Literal["one", "all", "first"]

ABSENT = -1  # the text of a row that has none


def all_rows(samples: Sequence[Sample], texts: Texts) -> Int64[np.ndarray, "rows 2"]:
    """(sample, text) of each row, in the order of the samples.

    With ``"all"`` each text is a row; else each sample is, and its text is 0 until
    `caption_of` chooses. A sample without text is one row with text `ABSENT`.
    """
    rows = [
        (index, text)
        for index, sample in enumerate(samples)
        for text in (
            range(len(sample.texts) if texts == "all" else 1) if sample.texts else [ABSENT]
        )
    ]
    return np.array(rows, np.int64).reshape(-1, 2)


def caption_of(sample: Sample, texts: Texts, stated: int, seed: int, epoch: int) -> int:
    """The text of a row: with ``"one"``, each text of a sample once before any comes again."""
    count = len(sample.texts)
    if texts != "one" or count < 2:
        return stated
    turn, place = divmod(epoch, count)
    return int(permutation(count, seed, "caption", sample.id, turn)[place])


def epoch_order(rows: int, seed: int, epoch: int, *, shuffle: bool) -> Int64[np.ndarray, " rows"]:
    """The rows of an epoch in their order."""
    if not shuffle:
        return np.arange(rows, dtype=np.int64)
    return permutation(rows, seed, "order", epoch).astype(np.int64)


def spread_groups(
    order: Int64[np.ndarray, " rows"], groups: Int64[np.ndarray, " rows"], batch_size: int
) -> Int64[np.ndarray, " rows"]:
    """The same rows, moved so that no batch holds two rows of one group where that can be.

    Each row goes into the first batch that has room and no row of its group; rows that fit
    nowhere (a group with more rows than there are batches, or an unlucky end) fill what is left.

    Args:
        order: rows in their order.
        groups: the group of each row, by row number.
        batch_size: rows of a batch; the last may have fewer.
    """
    batches = -(-len(order) // batch_size)
    room = np.full(batches, batch_size)
    room[-1] = len(order) - batch_size * (batches - 1)
    content: list[list[int]] = [[] for _ in range(batches)]
    next_batch: dict[int, int] = {}  # by group: the batches before it have one of its rows
    first_open, leftover = 0, []
    for row in order:
        group = int(groups[row])
        while first_open < batches and room[first_open] == 0:
            first_open += 1
        place = max(first_open, next_batch.get(group, 0))
        while place < batches and room[place] == 0:
            place += 1
        if place == batches:
            leftover.append(int(row))
            continue
        content[place].append(int(row))
        room[place] -= 1
        next_batch[group] = place + 1
    for place in range(batches):
        while room[place]:
            content[place].append(leftover.pop(0))
            room[place] -= 1
    return np.array([row for batch in content for row in batch], np.int64)


def shard(rows: int, rank: int, world: int) -> slice:
    """The part of a batch of ``rows`` that process ``rank`` of ``world`` takes.

    The parts in the order of ranks are the batch.
    """
    return slice(rows * rank // world, rows * (rank + 1) // world)
