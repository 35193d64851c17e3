"""The losses of BLIP-2's first stage: contrast, matching and writing (Li et al. 2023, section 3.2).

Functions of tensors; `plait.bridges.qformer_heads` makes these tensors, and holds what is learned.
Wrong pairs for matching: `plait.objectives.matching.matching.hard_pairing`, one right pair to two wrong ones,
drawn by the softmax of `query_similarity` over the temperature.

Shape legend: B samples (C texts), Q queries, E features of embeddings, P pairs, N words, V words of
the vocabulary.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from plait.core.errors import UserError
from plait.objectives.base.precision import wide

SMOOTHING = 0.1
"""The share of each target that is spread over all classes, in contrast and writing."""


def query_similarity(
    queries: Float[Tensor, "B Q E"], texts: Float[Tensor, "C E"]
) -> Float[Tensor, "B C"]:
    """Cosines of each picture and text: those of the query that is nearest to the text.

    Args:
        queries: unit vectors, several a picture.
        texts: unit vectors.
    """
    return torch.einsum("bqe,ce->bqc", queries, texts).amax(dim=1)


def query_contrast_loss(
    similarity: Float[Tensor, "B B"],
    temperature: Float[Tensor, ""] | float,
    groups: Int64[Tensor, " B"] | None = None,
    *,
    smoothing: float = SMOOTHING,
) -> Float[Tensor, ""]:
    """ITC: cross-entropy of pictures among texts and of texts among pictures, averaged.

    The target of a row is even over its positives, ``(1 - s) [positive] / n + s / B``.

    Args:
        similarity: see `query_similarity`.
        temperature: by which it is divided.
        groups: (B,) rows with equal numbers show the same thing and are positives of one another;
            None: each row only of itself.
        smoothing: s.

    Raises:
        UserError: smoothing that is not in 0..1.
    """
    _check(smoothing)
    logits = wide(similarity) / temperature
    groups = torch.arange(len(logits), device=logits.device) if groups is None else groups
    positive = (groups[:, None] == groups).to(logits.dtype)
    target = positive / positive.sum(dim=1, keepdim=True).clamp(min=1)
    both = (
        F.cross_entropy(one, target, label_smoothing=smoothing, reduction="sum")
        for one in (logits, logits.T)
    )
    return sum(both, logits.new_zeros(())) / (2 * max(1, len(logits)))


def query_match_loss(
    logits: Float[Tensor, "P Q 2"], matched: Bool[Tensor, " P"]
) -> Float[Tensor, ""]:
    """ITM: two-way cross-entropy of the mean over what each query says; 0 without any pair.

    Args:
        logits: not matched (0) and matched (1).
        matched: True where picture and text belong together.
    """
    total = F.cross_entropy(wide(logits).mean(dim=1), matched.long(), reduction="sum")
    return total / max(1, len(matched))


def writing_loss(
    logits: Float[Tensor, "B N V"],
    ids: Int64[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    smoothing: float = SMOOTHING,
) -> Float[Tensor, ""]:
    """ITG: cross-entropy of each word after the first, given those before it; 0 without any.

    Args:
        logits: at each word, of the next.
        ids: the words that were read; the first only begins the text.
        mask: False for padding.
        smoothing: the share of each target that is spread over the vocabulary.

    Raises:
        UserError: smoothing that is not in 0..1.
    """
    _check(smoothing)
    asked = mask[:, 1:] & mask[:, :-1]
    total = F.cross_entropy(
        wide(logits)[:, :-1].flatten(0, 1),
        ids[:, 1:].masked_fill(~asked, -100).flatten(),
        label_smoothing=smoothing,
        reduction="sum",
    )
    return total / asked.sum().clamp(min=1)


def _check(smoothing: float) -> None:
    if not 0 <= smoothing <= 1:
        raise UserError(f"label smoothing {smoothing:g} is not in 0..1")
