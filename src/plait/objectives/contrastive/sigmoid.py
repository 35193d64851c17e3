"""The pairwise sigmoid loss, exact, in memory linear in the batch: one pass over tiles.

A pair with logit z = scale <left_i, right_j> + bias costs log(1 + exp(z)) if it is a negative and
log(1 + exp(-z)) if it is a positive. Neither waits for the other pairs, so gradients are summed up
while the value is: three matrix products for both. See docs/objectives.md.

Shape legend: B rows of left, C rows of right (on all ranks), D features, b x c one tile, P
positive pairs in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from plait.objectives.base.once import once
from plait.objectives.base.ranks import Ranks
from plait.objectives.base.tiles import Tile, TileShape, inner_product, logit_tiles
from plait.objectives.contrastive.positives import Positives


class SigmoidLoss(torch.autograd.Function):
    """``apply(left, right, scale, bias, positives, shape, ranks, grad)``: see `sigmoid_loss`.

    left and right are this rank's rows in float32 or float64; positives pair this rank's rows of
    left with all ranks' rows of right; ``grad`` is whether gradients are recorded at all.
    """

    @staticmethod
    def forward(
        ctx: Any,
        left: Float[Tensor, "B D"],
        right: Float[Tensor, "C D"],
        scale: Float[Tensor, ""],
        bias: Float[Tensor, ""],
        positives: Positives,
        shape: TileShape,
        ranks: Ranks,
        grad: bool,
    ) -> Float[Tensor, ""]:
        """The loss; the gradients too, if any will be asked for."""
        everyone = ranks.gather(right)
        needed = tuple(grad and need for need in ctx.needs_input_grad[:4])
        rows = ranks.sum(torch.tensor(len(left), dtype=torch.float64, device=left.device))
        affine = (float(scale), float(bias))
        sums = _sums(left, everyone, affine, positives, shape, needed)
        factor = (scale.double() / rows).to(left) * ranks.size  # see the convention in `ranks`
        for_left, for_right = None, None
        if needed[0] and sums.by_row is not None:
            for_left = sums.by_row.mul_(factor)
        if needed[1] and sums.by_col is not None:
            for_right = ranks.sum(sums.by_col)[ranks.own(len(right))].mul_(factor)
        for_scale = (ranks.sum(sums.products) / rows).to(scale) if needed[2] else None
        for_bias = (ranks.sum(sums.slopes) / rows).to(bias) if needed[3] else None
        ctx.save_for_backward(left, right, scale, bias, for_left, for_right, for_scale, for_bias)
        return (ranks.sum(sums.value) / rows).to(left.dtype)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        """Gradients of left, right, scale and bias, kept since forward."""
        left, right, scale, bias, *saved = ctx.saved_tensors
        with torch.no_grad():
            gradients = [None if part is None else part * outer[0].to(part) for part in saved]
        sources = (left, right, scale, bias, outer[0])
        return (*(once("sigmoid_loss", gradient, *sources) for gradient in gradients), *[None] * 4)


@dataclass
class _Sums:
    """Sums over pairs: of the loss, of its slope g_ij = d loss / d z_ij, and products of g."""

    value: Tensor
    slopes: Tensor
    products: Tensor  # sum of g_ij <left_i, right_j>
    by_row: Tensor | None  # (B, D) g @ right
    by_col: Tensor | None  # (C, D) g.T @ left


def _sums(
    left: Tensor,
    right: Tensor,
    affine: tuple[float, float],
    positives: Positives,
    shape: TileShape,
    needed: tuple[bool, ...],
) -> _Sums:
    for_left, for_right, for_scale, for_bias = needed
    zero = torch.zeros((), dtype=torch.float64, device=left.device)
    by_row = torch.zeros_like(left) if for_left or (for_scale and not for_right) else None
    by_col = torch.zeros_like(right) if for_right else None
    sums = _Sums(zero, zero.clone(), zero.clone(), by_row, by_col)
    scale, bias = affine
    for tile in logit_tiles(left, right, scale, shape):
        tile.logits.add_(bias)
        flat, at = tile.logits.view(-1), _positive_places(tile, positives)
        matched = flat[at]
        flat[at] = -torch.inf  # costs nothing and has no slope as a negative
        sums.value += F.softplus(-matched, threshold=math.inf).sum(dtype=torch.float64)
        sums.value += _softplus_sum(tile.logits, tile.work)
        if not any(needed):
            continue
        tile.logits.sigmoid_()
        flat[at] = -torch.sigmoid(-matched)
        if for_bias:
            sums.slopes += tile.logits.sum()
        if by_row is not None:
            by_row[tile.rows].addmm_(tile.logits, right[tile.cols])
        if by_col is not None:
            by_col[tile.cols].addmm_(tile.logits.T, left[tile.rows])
    if for_scale and by_row is not None:  # one of the two products is enough
        sums.products = inner_product(left, by_row)
    elif for_scale and by_col is not None:
        sums.products = inner_product(right, by_col)
    return sums


def _positive_places(tile: Tile, positives: Positives) -> Int64[Tensor, " P"]:
    """Where the positive pairs are in the flattened tile."""
    width = tile.logits.shape[1]
    if positives.left_group is None or positives.right_group is None:
        start, stop = max(tile.rows.start, tile.cols.start), min(tile.rows.stop, tile.cols.stop)
        both = torch.arange(start, max(start, stop), device=tile.logits.device)
        return (both - tile.rows.start) * width + (both - tile.cols.start)
    equal = positives.left_group[tile.rows, None] == positives.right_group[tile.cols]
    return equal.view(-1).nonzero().squeeze(1)


def _softplus_sum(logits: Float[Tensor, "b c"], work: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """Sum of log(1 + exp(z)) in float64, through elementwise functions that are fast.

    log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)), and the second term is
    2 artanh(sigmoid(-|z| - ln 2)): PyTorch's log1p takes ten times as long on a processor.
    """
    positive_part = torch.clamp(logits, min=0, out=work).sum()
    rest = torch.abs(logits, out=work).add_(math.log(2)).neg_().sigmoid_().atanh_().sum()
    return positive_part.double() + 2 * rest.double()
