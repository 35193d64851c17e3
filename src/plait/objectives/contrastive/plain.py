"""The contrastive objectives as their formulas say, with whole B x C matrices.

They are the slow twins of `plait.objectives.contrastive.info_nce` and `sigmoid_loss`: easy to check by eye,
differentiable twice, and quadratic in memory.

Shape legend: B rows of left, C rows of right, D features.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from plait.objectives.contrastive.positives import Positives, find_positives

Scalar = float | Float[Tensor, ""]
Direction = Literal["both", "left"]


def info_nce_plain(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: Scalar,
    left_ids: Int64[Tensor, " B"] | None = None,
    right_ids: Int64[Tensor, " C"] | None = None,
    *,
    direction: Direction = "both",
) -> Float[Tensor, ""]:
    """InfoNCE by its formula; arguments, value and errors as `plait.objectives.contrastive.info_nce`."""
    positives = find_positives(left, right, left_ids, right_ids)
    positives.require()
    positive = _matrix(positives, len(left))
    logits = scale * left @ right.T
    loss = _cross_entropy(logits, positive)
    if direction == "left":
        return loss
    return (loss + _cross_entropy(logits.T, positive.T)) / 2


def sigmoid_loss_plain(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: Scalar,
    bias: Scalar,
    left_ids: Int64[Tensor, " B"] | None = None,
    right_ids: Int64[Tensor, " C"] | None = None,
) -> Float[Tensor, ""]:
    """Pairwise sigmoid loss by its formula; as `plait.objectives.sigmoid_loss`."""
    positive = _matrix(find_positives(left, right, left_ids, right_ids), len(left))
    logits = scale * left @ right.T + bias
    return -F.logsigmoid(torch.where(positive, logits, -logits)).sum() / len(left)


def _matrix(positives: Positives, rows: int) -> Bool[Tensor, "B C"]:
    if positives.left_group is None or positives.right_group is None:
        return torch.eye(rows, dtype=torch.bool, device=positives.left_count.device)
    return positives.left_group[:, None] == positives.right_group[None, :]


def _cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    """Mean over the rows with a positive of -mean over their positives of log softmax."""
    log_share = logits.log_softmax(dim=1)
    count = positive.sum(dim=1)
    rows = count > 0
    picked = torch.where(positive, log_share, torch.zeros_like(log_share)).sum(dim=1)
    return -(picked[rows] / count[rows]).mean()
