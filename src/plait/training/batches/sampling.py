"""Which task an update is for, when tasks take turns.

Legend: T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from plait.core.random import uniform

Kind = Literal["together", "round_robin", "proportional", "temperature"]


class TaskSampler:
    """Chooses tasks by (epoch, position) alone, so that a resumed run draws the same ones.

    Args:
        kind: see `plait.training.recipe.stage.Stage`.
        names: of the T tasks.
        sizes: rows that have each task's target.
        steps: batches of an epoch.
        seed: of the draws.
        temperature: of ``temperature``: sizes are raised to 1 / temperature (Devlin's multilingual
            BERT smooths languages so; 1 is ``proportional``, infinity is even).
    """

    def __init__(
        self,
        kind: Kind,
        names: Sequence[str],
        sizes: Sequence[int],
        *,
        steps: int,
        seed: int,
        temperature: float = 2.0,
    ) -> None:
        assert len(names) == len(sizes) and sum(sizes) > 0, (names, sizes)
        self.kind, self.names, self.steps, self.seed = kind, tuple(names), steps, seed
        power = 1 / temperature if kind == "temperature" else 1.0
        weights = np.asarray(sizes, dtype=np.float64) ** power * (np.asarray(sizes) > 0)
        self.shares = weights / weights.sum()

    def __call__(self, epoch: int, number: int) -> tuple[str, ...]:
        """The tasks of batch ``number`` of an epoch; () for all of them."""
        if self.kind == "together":
            return ()
        if self.kind == "round_robin":
            return (self.names[(epoch * self.steps + number) % len(self.names)],)
        drawn = uniform(1, self.seed, "task", epoch, number)[0]
        place = int(np.searchsorted(np.cumsum(self.shares), drawn, side="right"))
        return (self.names[min(place, len(self.names) - 1)],)
