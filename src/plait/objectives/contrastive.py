"""InfoNCE and the pairwise sigmoid loss over unit rows, exact.

Shape legend: B rows of left, C rows of right, D features.
"""

from __future__ import annotations

import math

from jaxtyping import Float, Int64
from torch import Tensor

from plait.objectives.plain import Direction, Scalar, info_nce_plain, sigmoid_loss_plain


def info_nce(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: Scalar,
    left_ids: Int64[Tensor, " B"] | None = None,
    right_ids: Int64[Tensor, " C"] | None = None,
    *,
    direction: Direction = "both",
) -> Float[Tensor, ""]:
    """Contrastive cross-entropy of matching rows among all rows of the other side.

    Args:
        left: (B, D) unit rows.
        right: (C, D) unit rows.
        scale: multiplies the cosines; the inverse of the temperature.
        left_ids: (B,) rows of the two sides with equal ids are positives of one another. Ids of
            one side alone count for both; without ids row i pairs with row i.
        right_ids: (C,) likewise.
        direction: "both" averages left among right and right among left (CLIP); "left" is the
            first of the two.
    """
    return info_nce_plain(left, right, scale, left_ids, right_ids, direction=direction)


def sigmoid_loss(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: Scalar,
    bias: Scalar,
    left_ids: Int64[Tensor, " B"] | None = None,
    right_ids: Int64[Tensor, " C"] | None = None,
) -> Float[Tensor, ""]:
    """Sum over all pairs of the logistic loss of being a positive, divided by B (SigLIP).

    Args:
        left: (B, D) unit rows.
        right: (C, D) unit rows.
        scale: multiplies the cosines.
        bias: added to the scaled cosines.
        left_ids: (B,) as for `info_nce`.
        right_ids: (C,) likewise.
    """
    return sigmoid_loss_plain(left, right, scale, bias, left_ids, right_ids)


def chance_level(rows: int) -> float:
    """InfoNCE of embeddings that tell nothing: ln(rows), every candidate equally likely.

    A loss that stays near it learns nothing (page "health" of the report).
    """
    return math.log(rows)
