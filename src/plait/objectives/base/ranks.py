"""Processes that share one batch: each has some of its rows.

The convention, here and in `gather`: every rank returns the loss of the whole batch, and the
gradient of its own rows is the *sum* over ranks of their losses' gradients, that is the number of
ranks times the gradient of the loss. DistributedDataParallel averages over ranks, which makes the
gradient of every parameter exactly that of one process with the whole batch.

Shape legend: N rows of this rank, M rows of all ranks, D features.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, distributed


@runtime_checkable
class Ranks(Protocol):
    """What a loss over rows of several processes needs of them."""

    size: int

    def gather(self, rows: Tensor) -> Tensor:
        """(M, ...) the rows of all ranks in the order of ranks; without a gradient."""

    def own(self, rows: int) -> slice:
        """Where this rank's ``rows`` rows are among those of all."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, element by element."""

    def log_sum_exp(self, tensor: Tensor) -> Tensor:
        """The log of the sum over ranks of exp, element by element."""


class Alone:
    """A single process."""

    size = 1

    def gather(self, rows: Tensor) -> Tensor:
        """(M, ...) the rows of all ranks in the order of ranks; without a gradient."""
        return rows

    def own(self, rows: int) -> slice:
        """Where this rank's ``rows`` rows are among those of all."""
        return slice(0, rows)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, element by element."""
        return tensor

    def log_sum_exp(self, tensor: Tensor) -> Tensor:
        """The log of the sum over ranks of exp, element by element."""
        return tensor


class Group:
    """The processes of a group of `torch.distributed`; they may have different numbers of rows.

    Args:
        group: the process group.
        rows: rows of this rank. All ranks must construct the object together.
        device: where the rows are.
    """

    def __init__(self, group: distributed.ProcessGroup, rows: int, device: torch.device) -> None:
        self.group = group
        self.size = distributed.get_world_size(group)
        counts = torch.zeros(self.size, dtype=torch.int64, device=device)
        counts[distributed.get_rank(group)] = rows
        distributed.all_reduce(counts, group=group)
        self.counts = counts.tolist()

    def gather(self, rows: Tensor) -> Tensor:
        """(M, ...) the rows of all ranks in the order of ranks; without a gradient."""
        largest = max(self.counts)
        padded = rows.new_zeros(largest, *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in self.counts]
        distributed.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:count] for part, count in zip(parts, self.counts, strict=True)])

    def own(self, rows: int) -> slice:
        """Where this rank's ``rows`` rows are among those of all."""
        start = sum(self.counts[: distributed.get_rank(self.group)])
        return slice(start, start + rows)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, element by element."""
        total = tensor.clone()
        distributed.all_reduce(total, group=self.group)
        return total

    def log_sum_exp(self, tensor: Tensor) -> Tensor:
        """The log of the sum over ranks of exp, element by element."""
        largest = tensor.clone()
        distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=self.group)
        return self.sum(torch.exp(tensor - largest)).log_().add_(largest)
