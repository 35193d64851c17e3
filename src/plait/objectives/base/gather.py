"""Rows of all processes as one tensor, with gradients.

Shape legend: N rows of this rank, M rows of all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from plait.objectives.base.ranks import Group


def gather(rows: Tensor, group: distributed.ProcessGroup | None = None) -> Tensor:
    """(N, ...) rows of each rank to (M, ...) rows of all, in the order of ranks.

    The gradient of a rank's rows is the sum over ranks of what each rank's loss gives them. So if
    every rank computes the *same* loss of the gathered rows, or a part of it times the number of
    ranks, then the mean over ranks that DistributedDataParallel takes is the gradient of one
    process with the whole batch. Ranks may have different numbers of rows. Without a process
    group (a single process) it returns ``rows``.

    `plait.objectives.contrastive.info_nce` and `sigmoid_loss` with ``group=`` do the same with less work: each
    rank computes its own rows of the logits only.
    """
    if group is None:
        if not (distributed.is_available() and distributed.is_initialized()):
            return rows
        group = distributed.group.WORLD
        assert group is not None
    return _Gather.apply(rows, Group(group, len(rows), rows.device))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Group) -> Tensor:
        ctx.ranks, ctx.rows = ranks, len(rows)
        return ranks.gather(rows)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        return ctx.ranks.sum(gradient[0])[ctx.ranks.own(ctx.rows)], None
