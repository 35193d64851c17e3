"""InfoNCE and the pairwise sigmoid loss: exact, many-to-many, in memory linear in the batch.

Shape legend: B rows of left, C rows of right, D features.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, distributed

from plait.core.errors import UserError
from plait.objectives.base.ranks import Alone, Group, Ranks
from plait.objectives.base.tiles import TileShape, default_tile
from plait.objectives.contrastive.info_nce import InfoNCE
from plait.objectives.contrastive.plain import Direction, Scalar
from plait.objectives.contrastive.positives import (
    Positives,
    check_rows,
    check_shapes,
    find_positives,
)
from plait.objectives.contrastive.sigmoid import SigmoidLoss


def info_nce(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: Scalar,
    left_ids: Int64[Tensor, " B"] | None = None,
    right_ids: Int64[Tensor, " C"] | None = None,
    *,
    direction: Direction = "both",
    group: distributed.ProcessGroup | None = None,
    tile: TileShape | None = None,
) -> Float[Tensor, ""]:
    """Contrastive cross-entropy of matching rows among all rows of the other side.

    The loss of a row is its cross-entropy against the uniform distribution over its positives
    (van den Oord et al. 2018, eq. 4; several positives as L_out of Khosla et al. 2020, eq. 2),
    averaged over the rows that have a positive; rows without one serve as negatives only. Computed
    in tiles (docs/objectives.md), in float32 for half-precision features. Second derivatives:
    `info_nce_plain`.

    Args:
        left: (B, D) unit rows.
        right: (C, D) unit rows.
        scale: multiplies the cosines; the inverse of the temperature. May carry a gradient.
        left_ids: (B,) rows of the two sides with equal ids are positives of one another. Ids of
            one side alone count for both; without ids row i pairs with row i.
        right_ids: (C,) likewise.
        direction: "both" averages left among right and right among left (CLIP); "left" is the
            first of the two.
        group: processes whose rows make up one batch; value and gradients as the convention of
            `plait.objectives.base.ranks` has them, that is right under DistributedDataParallel.
        tile: rows and columns of the logits to hold at a time.

    Returns:
        The loss, float32 or float64.

    Raises:
        UserError: shapes that don't fit, or a batch without any positive pair.
    """
    if direction not in ("both", "left"):
        raise UserError(f"direction must be 'both' or 'left', not {direction!r}")
    left, right, ranks, positives = _prepare(left, right, left_ids, right_ids, group)
    positives.require()
    shape = tile or default_tile(left.device)
    with torch.autocast(left.device.type, enabled=False):
        return InfoNCE.apply(
            left, right, _tensor(scale, left), positives, direction == "both", shape, ranks
        )


def sigmoid_loss(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: Scalar,
    bias: Scalar,
    left_ids: Int64[Tensor, " B"] | None = None,
    right_ids: Int64[Tensor, " C"] | None = None,
    *,
    group: distributed.ProcessGroup | None = None,
    tile: TileShape | None = None,
) -> Float[Tensor, ""]:
    """Sum over all pairs of the logistic loss of being a positive, divided by B.

    Zhai et al. 2023 (SigLIP), algorithm 1, with every pair of equal ids as a positive. Computed in
    tiles, in float32 for half-precision features. Second derivatives: `sigmoid_loss_plain`.

    Args:
        left: (B, D) unit rows.
        right: (C, D) unit rows.
        scale: multiplies the cosines. May carry a gradient.
        bias: added to the scaled cosines. May carry a gradient.
        left_ids: (B,) as for `info_nce`.
        right_ids: (C,) likewise.
        group: as for `info_nce`; B is then the rows of all processes.
        tile: as for `info_nce`.

    Returns:
        The loss, float32 or float64. A batch of negatives only is allowed.

    Raises:
        UserError: shapes that don't fit.
    """
    left, right, ranks, positives = _prepare(left, right, left_ids, right_ids, group)
    shape = tile or default_tile(left.device)
    with torch.autocast(left.device.type, enabled=False):
        return SigmoidLoss.apply(
            left,
            right,
            _tensor(scale, left),
            _tensor(bias, left),
            positives,
            shape,
            ranks,
            torch.is_grad_enabled(),
        )


def chance_level(rows: int) -> float:
    """InfoNCE of embeddings that tell nothing: ln(rows), every candidate equally likely.

    A training loss that stays near it has learnt nothing.
    """
    return math.log(rows)


def _prepare(
    left: Tensor,
    right: Tensor,
    left_ids: Tensor | None,
    right_ids: Tensor | None,
    group: distributed.ProcessGroup | None,
) -> tuple[Tensor, Tensor, Ranks, Positives]:
    """The features in the type of the computation, and who is whose positive."""
    dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    left, right = left.to(dtype).contiguous(), right.to(dtype).contiguous()
    if group is None:
        return left, right, Alone(), find_positives(left, right, left_ids, right_ids)
    check_shapes(left, right, left_ids, right_ids)
    left_ranks = Group(group, len(left), left.device)
    right_ranks = Group(group, len(right), right.device)
    check_rows(sum(left_ranks.counts), sum(right_ranks.counts))  # one rank may well have none
    own = left_ranks.own(len(left))
    left_ids = right_ids if left_ids is None else left_ids
    if left_ids is None:  # row i of each rank pairs with row i of that rank
        left_ids = torch.arange(own.start, own.stop, device=left.device)
    right_ids = left_ids if right_ids is None else right_ids
    positives = Positives.of_ids(left_ranks.gather(left_ids), right_ranks.gather(right_ids))
    return left, right, right_ranks, positives.of_left_rows(own)


def _tensor(number: Scalar, like: Tensor) -> Tensor:
    if isinstance(number, Tensor):
        return number
    return torch.tensor(number, dtype=torch.float64, device=like.device)
