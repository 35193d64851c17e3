"""Losses of restoring what was hidden: words, features of regions, classes of regions.

Each is a mean over the hidden positions alone, and looks at nothing else: whatever padding holds,
it changes neither a value nor a gradient. When nothing is hidden, all are 0 with a graph, never
NaN (dividing by a count of zero spoils a run for good).

Shape legend: B samples, N words, V vocabulary, M regions, D features, C classes of regions.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from plait.core.errors import UserError
from plait.objectives.base.precision import wide
from plait.objectives.masked.masking import IGNORED


def mlm_loss(
    logits: Float[Tensor, "*shape V"], labels: Int64[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the words that were hidden (Devlin et al. 2019, section 3.1).

    Args:
        logits: (B, N, V), or those of some positions, (K, V).
        labels: (B, N) or (K,) true ids; -100 where nothing was hidden.
    """
    chosen = labels != IGNORED
    return _mean(F.cross_entropy(wide(logits[chosen]), labels[chosen], reduction="sum"), chosen)


def mrfr_loss(
    predicted: Float[Tensor, "B M D"],
    features: Float[Tensor, "B M D"],
    masked: Bool[Tensor, "B M"],
) -> Float[Tensor, ""]:
    """Masked region feature regression: squared error, mean over hidden regions and features.

    UNITER (Chen et al. 2020, section 3.2); mean over features too, as in its code.

    Args:
        predicted: (B, M, D) what the model says.
        features: (B, M, D) what was hidden.
        masked: (B, M) True where a region was hidden.
    """
    error = F.mse_loss(wide(predicted[masked]), wide(features[masked]), reduction="sum")
    return _mean(error, masked, predicted.shape[-1])


def mrc_loss(
    logits: Float[Tensor, "B M C"],
    soft: Float[Tensor, "B M C"],
    masked: Bool[Tensor, "B M"],
    *,
    background: int | None = 0,
) -> Float[Tensor, ""]:
    """Masked region classification: cross-entropy with the detector's most probable class.

    UNITER, section 3.2. The background is never the target, though it may be predicted.

    Args:
        logits: (B, M, C) of all classes.
        soft: (B, M, C) the detector's probabilities.
        masked: (B, M) True where a region was hidden.
        background: its class, or None when there is none.

    Raises:
        UserError: the background is no class.
    """
    soft = soft[masked]
    if background is not None:
        if not 0 <= background < soft.shape[-1]:
            raise UserError(f"background {background} is none of {soft.shape[-1]} classes")
        soft = soft.index_fill(-1, soft.new_tensor([background]).long(), float("-inf"))
    target = soft.argmax(dim=-1)
    return _mean(F.cross_entropy(wide(logits[masked]), target, reduction="sum"), masked)


def mrc_kl_loss(
    logits: Float[Tensor, "B M C"],
    soft: Float[Tensor, "B M C"],
    masked: Bool[Tensor, "B M"],
    *,
    mean_over_classes: bool = False,
) -> Float[Tensor, ""]:
    """Masked region classification with KL(soft || predicted), mean over hidden regions.

    UNITER, section 3.2, and ViLBERT (Lu et al. 2019, section 2.2).

    Args:
        logits: (B, M, C) of all classes.
        soft: (B, M, C) the detector's probabilities.
        masked: (B, M) True where a region was hidden.
        mean_over_classes: divide by C as well, as UNITER's code does, where the term thus weighs
            1/1601 of a divergence.
    """
    log_share = wide(logits[masked]).log_softmax(dim=-1)
    divergence = F.kl_div(log_share, wide(soft[masked]), reduction="sum")
    return _mean(divergence, masked, logits.shape[-1] if mean_over_classes else 1)


def _mean(total: Tensor, chosen: Tensor, size: int = 1) -> Tensor:
    return total / (chosen.sum() * size).clamp(min=1)
