"""The two passes of InfoNCE over tiles: log-sum-exps, then products with the softmaxes.

Nothing here knows of positives: those enter InfoNCE through sums over groups (see `info_nce`).

Shape legend: B rows of left, C rows of right, D features, N rows of either.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from plait.objectives.base.tiles import Tile, TileShape, largest_logit, logit_tiles

# exp of a logit within these limits, and a sum of a billion of them, neither over- nor underflows,
# so that no maximum need be subtracted and both softmaxes share one exp.
_SAFE = {torch.float32: 60.0, torch.float64: 600.0}


@dataclass(frozen=True)
class Softmax:
    """The softmaxes of all rows (or all columns) of the logits, each with a weight.

    Attributes:
        lse: (N,) log-sum-exp of each, float64.
        weight: (N,) by which its shares are multiplied, float64.
    """

    lse: Float[Tensor, " N"]
    weight: Float[Tensor, " N"]


def log_sum_exps(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: float,
    shape: TileShape,
    *,
    columns: bool = True,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " C"] | None]:
    """Log-sum-exp of each row and each column of ``scale * left @ right.T``, in one pass.

    Returns:
        float64 (B,), and (C,) or None if ``columns`` is false.
    """
    safe = largest_logit(left, right, scale) <= _SAFE[left.dtype]
    start = 0.0 if safe else -torch.inf
    row = left.new_full((len(left),), start, dtype=torch.float64)
    col = left.new_full((len(right),), start, dtype=torch.float64) if columns else None
    for tile in logit_tiles(left, right, scale, shape):
        if safe:
            tile.logits.exp_()
            row[tile.rows] += tile.logits.sum(1)
            if col is not None:
                col[tile.cols] += tile.logits.sum(0)
        else:
            row[tile.rows] = torch.logaddexp(row[tile.rows], tile.logits.logsumexp(1).double())
            if col is not None:
                col[tile.cols] = torch.logaddexp(col[tile.cols], tile.logits.logsumexp(0).double())
    if not safe:
        return row, col
    return row.log_(), None if col is None else col.log_()


def softmax_products(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: float,
    row: Softmax,
    col: Softmax | None,
    shape: TileShape,
    *,
    needed: tuple[bool, bool] = (True, True),
) -> tuple[Float[Tensor, "B D"] | None, Float[Tensor, "C D"] | None]:
    """``P @ right`` and ``P.T @ left``, where P is the weighted sum of the two softmaxes.

    P_ij = row.weight_i exp(z_ij - row.lse_i) + col.weight_j exp(z_ij - col.lse_j). The tiles of
    the logits z are computed again, so that no more than one of them exists at a time.

    Args:
        left: (B, D) rows.
        right: (C, D) rows.
        scale: multiplies their products to give z.
        row: softmaxes over the rows of z.
        col: softmaxes over the columns, or None for none.
        shape: of the tiles.
        needed: which of the two products to compute; None is returned for the other.
    """
    by_row = torch.zeros_like(left) if needed[0] else None
    by_col = torch.zeros_like(right) if needed[1] else None
    safe = largest_logit(left, right, scale) <= _SAFE[left.dtype]
    row = _prepared(row, safe, left.dtype)
    col = None if col is None else _prepared(col, safe, left.dtype)
    turn_into_shares = _shares_by_one_exp if safe else _shares_by_two_exps
    for tile in logit_tiles(left, right, scale, shape):
        turn_into_shares(tile, row, col)
        if by_row is not None:
            by_row[tile.rows].addmm_(tile.logits, right[tile.cols])
        if by_col is not None:
            by_col[tile.cols].addmm_(tile.logits.T, left[tile.rows])
    return by_row, by_col


def _prepared(side: Softmax, safe: bool, dtype: torch.dtype) -> Softmax:
    """The softmaxes in the type of the tiles; if safe, exp(-lse) becomes part of the weight."""
    weight = side.weight * torch.exp(-side.lse) if safe else side.weight
    return Softmax(side.lse.to(dtype), weight.to(dtype))


def _shares_by_one_exp(tile: Tile, row: Softmax, col: Softmax | None) -> None:
    """P_ij = exp(z_ij) (a_i + b_j) in place of z."""
    weight = row.weight[tile.rows, None]
    if col is not None:
        weight = torch.add(weight, col.weight[tile.cols], out=tile.work)
    tile.logits.exp_().mul_(weight)


def _shares_by_two_exps(tile: Tile, row: Softmax, col: Softmax | None) -> None:
    """P in place of z without a number beyond 1 on the way, whatever the logits are."""
    if col is not None:
        torch.sub(tile.logits, col.lse[tile.cols], out=tile.work).exp_().mul_(col.weight[tile.cols])
    tile.logits.sub_(row.lse[tile.rows, None]).exp_().mul_(row.weight[tile.rows, None])
    if col is not None:
        tile.logits.add_(tile.work)
