"""What makes an int8 graph of a tower, and which of its layers mind.

A quantiser works on one float graph. Its operations, in the order in which they run, are cut into
groups of consecutive ones, each beginning with a layer that has weights; a group is int8 as a whole
or float as a whole. The harm that a group does by itself is measured, not guessed: quantised alone,
how far do the embeddings turn? Groups are then put back to float in the order of that harm until
the user's recall is within tolerance (`plait.compression.search`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np

from plait.runtime.manifest import Format
from plait.runtime.sessions import Session

GROUPS: Final = 10
Inputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Made:
    """The files of an int8 graph.

    Attributes:
        file: the graph.
        parts: files that belong to it.
        bytes: of all of them.
    """

    file: Path
    parts: tuple[Path, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in (self.file, *self.parts))


@runtime_checkable
class Quantiser(Protocol):
    """Makes int8 graphs of one tower."""

    @property
    def format(self) -> Format:
        """Of the graphs it makes."""

    @property
    def groups(self) -> Sequence[Sequence[str]]:
        """Names of the operations of each group."""

    def make(self, floating: Sequence[int], stem: str) -> Made:
        """The graph with all groups int8 but those numbered in ``floating``."""

    def reference(self, threads: int | None = None) -> Session:
        """The float graph in its engine."""

    def open(self, made: Made, threads: int | None = None) -> Session:
        """The graph in its engine."""


def in_groups(operations: Sequence[tuple[str, bool]], most: int = GROUPS) -> list[list[str]]:
    """Consecutive operations in at most ``most`` groups with about equally many layers.

    Args:
        operations: (name, has weights) in the order in which they run.
        most: how many groups.
    """
    layers = [place for place, (_, weighty) in enumerate(operations) if weighty]
    count = min(most, len(layers))
    starts = [layers[len(layers) * k // count] for k in range(count)]
    if starts:
        starts[0] = 0
    ends = [*starts[1:], len(operations)][: len(starts)]
    return [
        [name for name, _ in operations[start:end]] for start, end in zip(starts, ends, strict=True)
    ]


def parted(operations: Sequence[tuple[str, bool]]) -> tuple[list[list[str]], list[str]]:
    """(groups, what comes after the last layer with weights).

    The latter brings rows to unit length; in int8 they would have no length in common.
    """
    last = max((place for place, (_, weighty) in enumerate(operations) if weighty), default=-1)
    return in_groups(operations[: last + 1]), [name for name, _ in operations[last + 1 :]]


def harms(
    quantiser: Quantiser,
    reference: Session,
    probes: Sequence[Inputs],
    *,
    threads: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[float]:
    """1 - mean cosine to the float embeddings with each group quantised alone.

    Args:
        quantiser: of a tower.
        reference: the float graph.
        probes: inputs that calibration did not see.
        threads: of the engine.
        tell: is told how far it is.
    """
    expected = np.concatenate([reference.run(inputs) for inputs in probes])
    found = []
    every = range(len(quantiser.groups))
    for number in every:
        tell(f"sensitivity of group {number + 1} of {len(every)}")
        made = quantiser.make([other for other in every if other != number], f"alone{number}")
        session = quantiser.open(made, threads)
        rows = np.concatenate([session.run(inputs) for inputs in probes])
        found.append(1 - mean_cosine(rows, expected))
        del session
        for path in (made.file, *made.parts):
            path.unlink()
    return found


def mean_cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Of rows of equal place."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / np.maximum(lengths, 1e-30)).mean())


def drift(session: Session, inputs: Sequence[Inputs]) -> float:
    """How much answers depend on what else is in a batch.

    The largest change of a cosine between any two rows of the set, when the rows of one side are
    computed in batches of all rather than each alone. Static quantisation should show the rounding
    of sums alone; a dynamic one, whose scales follow the batch, shows more.

    Args:
        session: an open graph.
        inputs: one batch; texts of different lengths are padded in it, and not when alone.
    """
    largest = 0.0
    for batch in inputs:
        count = len(next(iter(batch.values())))
        alone = np.concatenate([session.run(_row(batch, place)) for place in range(count)])
        together = session.run(batch)
        alone, together = (rows.astype(np.float64) for rows in (alone, together))
        largest = max(largest, float(np.abs((alone - together) @ alone.T).max()))
    return largest


def _row(batch: Inputs, place: int) -> dict[str, np.ndarray]:
    """One row of a batch, without its padding."""
    row = {name: value[place : place + 1] for name, value in batch.items()}
    mask = row.get("mask")
    if mask is None:
        return row
    length = int(np.flatnonzero(mask[0]).max(initial=0)) + 1
    return {name: value[:, :length] for name, value in row.items()}
