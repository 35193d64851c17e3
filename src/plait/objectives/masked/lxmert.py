"""LXMERT's losses of regions: weighted by confidence, averaged over all regions, hidden or not.

Tan and Bansal 2019, section 3.1; the reference multiplies each by 1 / 0.15 = 6.67 (the share of
hidden regions), which is left to the recipe.

Shape legend: B samples, M regions, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from plait.objectives.base.precision import wide
from plait.objectives.masked.masking import IGNORED


def region_feature_loss(
    predicted: Float[Tensor, "B M D"],
    features: Float[Tensor, "B M D"],
    weight: Float[Tensor, "B M"],
    mask: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, ""]:
    """Smooth L1 (0.5 d^2 for |d| < 1, else |d| - 0.5), mean over features and regions.

    Args:
        predicted: (B, M, D) what the model says.
        features: (B, M, D) what was hidden.
        weight: (B, M) 1 for a hidden region, 0 for others; or a confidence.
        mask: (B, M) True for real regions; None when all are, as in LXMERT.
    """
    return _weighted(
        weight,
        mask,
        lambda chosen: F.smooth_l1_loss(
            wide(predicted[chosen]), wide(features[chosen]), reduction="none"
        ).mean(dim=-1),
    )


def region_label_loss(
    logits: Float[Tensor, "B M C"],
    labels: Int64[Tensor, "B M"],
    weight: Float[Tensor, "B M"],
    mask: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy with the detector's object or attribute, weighted by its confidence.

    Args:
        logits: (B, M, C).
        labels: (B, M) classes; -100 counts as 0 loss.
        weight: (B, M) the detector's confidence, 0 where the region was not hidden.
        mask: (B, M) True for real regions; None when all are, as in LXMERT.
    """
    return _weighted(
        weight,
        mask,
        lambda chosen: F.cross_entropy(
            wide(logits[chosen]), labels[chosen], reduction="none", ignore_index=IGNORED
        ),
    )


def _weighted(weight: Tensor, mask: Tensor | None, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Sum over real regions of weight times loss, divided by their number."""
    real = weight.new_ones(weight.shape).bool() if mask is None else mask
    return (wide(weight[real]) * loss_of(real)).sum() / real.sum().clamp(min=1)
