"""Margin ranking: the right pair above wrong ones by a margin.

Shape legend: B queries, K wrong candidates of each, H of them that are hard.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from plait.core.errors import UserError
from plait.objectives.base.precision import wide


def ranking_loss(
    right: Float[Tensor, " B"],
    wrong: Float[Tensor, "B K"],
    mask: Bool[Tensor, "B K"] | None = None,
    *,
    margin: float = 0.2,
) -> Float[Tensor, ""]:
    """Mean over right and wrong pairs of max(0, margin + sigmoid(wrong) - sigmoid(right)).

    UNITER (Chen et al. 2020, appendix on image-text retrieval): margin 0.2, 31 hard negatives.

    Args:
        right: (B,) score of each query's right candidate, before the sigmoid.
        wrong: (B, K) scores of its wrong candidates.
        mask: (B, K) True for real candidates; None when all are. 0 with a graph if none is.
        margin: in probabilities, from 0 to 1.
    """
    gap = margin + wide(wrong).sigmoid() - wide(right).sigmoid()[:, None]
    real = torch.ones_like(wrong, dtype=torch.bool) if mask is None else mask
    return gap[real].clamp(min=0).sum() / real.sum().clamp(min=1)


@torch.no_grad()
def hardest(
    scores: Float[Tensor, "B K"], count: int, allowed: Bool[Tensor, "B K"] | None = None
) -> tuple[Int64[Tensor, "B H"], Bool[Tensor, "B H"]]:
    """The ``count`` highest of the wrong candidates, the highest first.

    Args:
        scores: (B, K) of all candidates, computed without a graph.
        count: H, at most K.
        allowed: (B, K) False for candidates that are right (or absent); None when all are wrong.

    Returns:
        (B, H) columns, and (B, H) False where a query has fewer wrong candidates than that.

    Raises:
        UserError: more are wanted than there are.
    """
    if not 0 < count <= scores.shape[1]:
        raise UserError(f"{count} hard negatives of {scores.shape[1]} candidates")
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    columns = scores.topk(count, dim=1).indices
    if allowed is None:
        return columns, torch.ones_like(columns, dtype=torch.bool)
    return columns, allowed.gather(1, columns)
