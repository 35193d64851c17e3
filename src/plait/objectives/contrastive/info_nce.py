"""InfoNCE, exact, in memory linear in the batch: two passes over tiles of the logits.

With z_ij = scale <left_i, right_j>, P(i) the positives of row i and n_i their number, the loss of
row i is lse_i - (1 / n_i) sum over P(i) of z_ij. The positives enter value and gradients through
sums over the rows of each group, without a mask: rows of group g and their positives all share the
coefficient c_g = w / n_right[g] + w' / n_left[g] (w, w' the weights of a row of either side in the
mean). See docs/objectives.md for the derivation.

Shape legend: B rows of left, C rows of right (on all ranks), D features, G groups.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from plait.objectives.base.once import once
from plait.objectives.base.ranks import Ranks
from plait.objectives.base.tiles import TileShape, blocks, inner_product
from plait.objectives.contrastive.positives import Positives
from plait.objectives.contrastive.softmax_tiles import Softmax, log_sum_exps, softmax_products


class InfoNCE(torch.autograd.Function):
    """``apply(left, right, scale, positives, both, shape, ranks)``: see `plait.objectives.contrastive.info_nce`.

    left and right are this rank's rows in float32 or float64; positives pair this rank's rows of
    left with all ranks' rows of right.
    """

    @staticmethod
    def forward(
        ctx: Any,
        left: Float[Tensor, "B D"],
        right: Float[Tensor, "C D"],
        scale: Float[Tensor, ""],
        positives: Positives,
        both: bool,
        shape: TileShape,
        ranks: Ranks,
    ) -> Float[Tensor, ""]:
        """The loss, keeping the log-sum-exps."""
        everyone = ranks.gather(right)
        row_lse, col_lse = log_sum_exps(left, everyone, float(scale), shape, columns=both)
        row_weight, col_weight, coefficient = _weights(positives, len(left), len(everyone), both)
        value = (row_weight * row_lse).sum()
        if col_lse is not None:
            col_lse = ranks.log_sum_exp(col_lse)
            own = ranks.own(len(right))
            value += (col_weight[own] * col_lse[own]).sum()
        value -= scale * _positive_products(left, everyone, positives, coefficient)
        ctx.save_for_backward(left, right, scale, everyone, row_lse, col_lse)
        ctx.rest = positives, row_weight, col_weight, coefficient, shape, ranks
        return ranks.sum(value).to(left.dtype)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        """Gradients of left, right and scale, from tiles computed again."""
        left, right, scale, *_ = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(left.device.type, enabled=False):
            gradients = _gradients(ctx, outer[0])
        sources = (left, right, scale, outer[0])
        return (*(once("info_nce", gradient, *sources) for gradient in gradients), *[None] * 4)


def _gradients(ctx: Any, outer: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    left, right, scale, everyone, row_lse, col_lse = ctx.saved_tensors
    positives, row_weight, col_weight, coefficient, shape, ranks = ctx.rest
    for_left, for_right, for_scale = ctx.needs_input_grad[:3]
    for_left = for_left or (for_scale and not for_right)  # the scale's comes from either
    by_row, by_col = softmax_products(
        left,
        everyone,
        float(scale),
        Softmax(row_lse, row_weight),
        None if col_lse is None else Softmax(col_lse, col_weight),
        shape,
        needed=(for_left, for_right),
    )
    if by_row is not None:
        _subtract_positives(by_row, everyone, positives, coefficient, of_left=True)
    if by_col is not None:
        _subtract_positives(by_col, left, positives, coefficient, of_left=False)
    scale_gradient = None
    if for_scale and by_row is not None:
        scale_gradient = (ranks.sum(inner_product(left, by_row)) * outer).to(scale)
    elif for_scale and by_col is not None:
        scale_gradient = (ranks.sum(inner_product(everyone, by_col)) * outer).to(scale)
    factor = (outer * scale).to(left) * ranks.size  # see the convention in `ranks`
    if by_row is not None:
        by_row.mul_(factor)
    if by_col is not None:
        by_col = ranks.sum(by_col)[ranks.own(len(right))].mul_(factor)
    return by_row if ctx.needs_input_grad[0] else None, by_col, scale_gradient


def _weights(
    positives: Positives, rows: int, cols: int, both: bool
) -> tuple[Float[Tensor, " B"], Float[Tensor, " C"], Float[Tensor, " G"]]:
    """Weight of each row's and each column's term in the loss, and c_g (see the top), float64."""
    share = 0.5 if both else 1.0
    row = share / positives.left_rows.double()
    col = (1 - share) / positives.right_rows.double()
    coefficient = row / positives.right_count + col / positives.left_count
    return positives.left_has(rows) * row, positives.right_has(cols) * col, coefficient


def _positive_products(
    left: Tensor, right: Tensor, positives: Positives, coefficient: Float[Tensor, " G"]
) -> Float[Tensor, ""]:
    """Sum over positive pairs of c_g <left_i, right_j>, float64."""
    if positives.left_group is None or positives.right_group is None:
        return inner_product(left, right) * coefficient[0]  # the same for all
    return inner_product(
        _group_sums(left, positives.left_group, coefficient),
        _group_sums(right, positives.right_group, torch.ones_like(coefficient)),
    )


def _subtract_positives(
    target: Tensor, other: Tensor, positives: Positives, coefficient: Tensor, *, of_left: bool
) -> None:
    """Subtracts from each row of target c_g times the sum of its positives among ``other``.

    The targets are rows of left and the others of right, or the other way round.
    """
    if positives.left_group is None or positives.right_group is None:
        target.sub_(other, alpha=float(coefficient[0]))
        return
    group, others = positives.left_group, positives.right_group
    if not of_left:
        group, others = others, group
    sums = _group_sums(other, others, coefficient)
    for rows in blocks(len(target), 1024):
        target[rows] -= sums[_bucket(group[rows], len(coefficient))]


def _group_sums(
    rows: Float[Tensor, "N D"], group: Int64[Tensor, " N"], weight: Float[Tensor, " G"]
) -> Float[Tensor, "G+1 D"]:
    """Weighted sum of the rows of each group; the last row, of those without a group, is zero."""
    sums = rows.new_zeros(len(weight) + 1, rows.shape[1])
    sums.index_add_(0, _bucket(group, len(weight)), rows)
    sums[:-1] *= weight.to(sums)[:, None]
    sums[-1] = 0
    return sums


def _bucket(group: Int64[Tensor, " N"], count: int) -> Int64[Tensor, " N"]:
    return torch.where(group < 0, count, group)
