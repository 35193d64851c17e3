"""What the loop asks of a task: a loss with named parts.

The loop knows tasks and nothing of models. A contrastive task also splits into `embed` and
`loss_of_embeddings`, so that gradient caching and accumulation work for all of them alike.

Shape legend: B rows, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from plait.core.batch import Batch

Scalar = Float[Tensor, ""]


Embeddings = Mapping[str, Tensor]


@dataclass(frozen=True)
class TaskLoss:
    """A loss to minimise, and what it is made of (detached, for the record)."""

    total: Scalar
    parts: Mapping[str, Scalar]


@runtime_checkable
class Task(Protocol):
    """A model, an objective, and the fields of the batch that they need."""

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph."""


@runtime_checkable
class EmbeddingTask(Task, Protocol):
    """A task whose loss needs one vector a row, and nothing else of the graph."""

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Named (B, D) rows; every row depends on its own row of the batch alone."""

    def loss_of_embeddings(self, embeddings: Embeddings, batch: Batch) -> TaskLoss:
        """The loss, given all rows that `embed` made of ``batch``."""
