"""Words moved onto regions at the least cost: optimal transport by proximal points (IPOT).

Shape legend: B samples, N words (rows), M regions (columns), D features.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from plait.core.errors import UserError

BETA, ITERATIONS = 0.5, 50  # UNITER's
_LARGEST = 80.0  # exp(-80) is about the smallest number that float32 holds in full


def ipot(
    cost: Float[Tensor, "B N M"],
    row_mask: Bool[Tensor, "B N"],
    column_mask: Bool[Tensor, "B M"],
    *,
    beta: float = BETA,
    iterations: int = ITERATIONS,
) -> Float[Tensor, "B N M"]:
    """The transport plan between uniform weights on real rows and on real columns.

    Xie et al. 2018, algorithm 1, with one inner step. Each iteration solves an entropic problem
    around the last plan, so that the limit is the exact plan whatever ``beta`` is (a smaller one
    gets there sooner). Computed in float32, or float64 for costs of float64, also under autocast;
    no gradient flows.

    Args:
        cost: (B, N, M) of moving one unit; those of padding are ignored, whatever they are.
        row_mask: (B, N) True for real rows.
        column_mask: (B, M) True for real columns.
        beta: step of the proximal point method, above 0.
        iterations: at least 1.

    Returns:
        (B, N, M) plans that sum to 1: columns to exactly 1/m each, with m real columns, and rows
        to about 1/n each, the nearer the more iterations. 0 on padding, and all 0 where a sample
        has no row or no column.

    Raises:
        UserError: beta or iterations out of range, or costs too far apart for the step.
    """
    if beta <= 0 or iterations < 1:
        raise UserError(f"beta {beta:g} is not above 0, or iterations {iterations} not at least 1")
    with torch.no_grad(), torch.autocast(cost.device.type, enabled=False):
        real = row_mask[:, :, None] & column_mask[:, None, :]
        near = _proximity(cost if cost.dtype == torch.float64 else cost.float(), real, beta)
        plan = real.to(near.dtype)
        rows = real.any(dim=2, keepdim=True)  # (B, N, 1): none real where the other side is empty
        columns = real.any(dim=1, keepdim=True)  # (B, 1, M)
        row_weight, column_weight = (
            side.to(near.dtype) / side.sum(dim=(1, 2), keepdim=True).clamp(min=1)
            for side in (rows, columns)
        )
        right = column_weight
        for _ in range(iterations):
            kernel = near * plan
            left = row_weight / (kernel * right).sum(2, keepdim=True).masked_fill(~rows, 1)
            right = column_weight / (kernel * left).sum(1, keepdim=True).masked_fill(~columns, 1)
            plan = left * kernel * right
        return plan


def cosine_cost(
    left: Float[Tensor, "B N D"], right: Float[Tensor, "B M D"]
) -> Float[Tensor, "B N M"]:
    """1 - cosine of every pair, from 0 to 2, in float32 at least."""
    left, right = (one if one.dtype == torch.float64 else one.float() for one in (left, right))
    with torch.autocast(left.device.type, enabled=False):
        return 1 - F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).transpose(1, 2)


def transport_cost(
    left: Float[Tensor, "B N D"],
    right: Float[Tensor, "B M D"],
    left_mask: Bool[Tensor, "B N"],
    right_mask: Bool[Tensor, "B M"],
    *,
    beta: float = BETA,
    iterations: int = ITERATIONS,
) -> Float[Tensor, " B"]:
    """How far words lie from regions: the cosine cost of the `ipot` plan, 0 for an empty side.

    The plan is held fixed, so the gradient with respect to the cost of a pair is what is moved
    along it.
    """
    real = left_mask[:, :, None] & right_mask[:, None, :]
    left, right = (
        one.masked_fill(~mask[:, :, None], 0)
        for one, mask in ((left, left_mask), (right, right_mask))
    )
    cost = cosine_cost(left, right).masked_fill(~real, 0)
    plan = ipot(cost.detach(), left_mask, right_mask, beta=beta, iterations=iterations)
    return (cost * plan).sum(dim=(1, 2))


def word_region_alignment(
    words: Float[Tensor, "B N D"],
    regions: Float[Tensor, "B M D"],
    word_mask: Bool[Tensor, "B N"],
    region_mask: Bool[Tensor, "B M"],
    matched: Bool[Tensor, " B"],
    *,
    beta: float = BETA,
    iterations: int = ITERATIONS,
) -> Float[Tensor, ""]:
    """Transport cost of matched pairs minus that of unmatched ones, divided by their number.

    UNITER (Chen et al. 2020, section 3.2): (sum over matched - sum over unmatched) / B as in its
    code, so a batch of one kind is fine. The recipe adds it to the matching loss with factor 0.1.

    Args:
        words: (B, N, D) outputs of the model at the words.
        regions: (B, M, D) outputs at the regions.
        word_mask: (B, N) True for real words.
        region_mask: (B, M) True for real regions.
        matched: (B,) True where words and regions belong together.
        beta: see `ipot`.
        iterations: see `ipot`.
    """
    costs = transport_cost(words, regions, word_mask, region_mask, beta=beta, iterations=iterations)
    counted = (word_mask.any(dim=1) & region_mask.any(dim=1)).sum().clamp(min=1)
    return torch.where(matched, costs, -costs).sum() / counted


def _proximity(cost: Tensor, real: Tensor, beta: float) -> Tensor:
    """exp(-cost / beta), with the smallest cost of each sample moved to 0; 0 on padding."""
    if not cost.numel():
        return torch.zeros_like(cost)
    low = cost.masked_fill(~real, float("inf")).amin(dim=(1, 2), keepdim=True)
    above = ((cost - low) / beta).masked_fill(~real, 0)
    largest = float(above.amax())
    if not largest <= _LARGEST:  # NaN too
        raise UserError(
            f"costs of one sample lie {largest * beta:g} apart, more than {_LARGEST:g} times beta "
            f"{beta:g}: raise beta, or scale the costs (cosine costs lie in 0..2)"
        )
    return torch.exp(-above).masked_fill(~real, 0)
