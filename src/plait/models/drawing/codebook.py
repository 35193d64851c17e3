"""The pure parts of a discrete VAE: relaxed choice of codes, its distance to the prior, its use.

Shape legend: B pictures, K codes, h, w the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def gumbel_softmax(
    logits: Float[Tensor, "B K h w"],
    temperature: float,
    hard: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B K h w"]:
    """A sample of the codes, relaxed so that gradients flow (Jang et al., Maddison et al. 2016).

    Args:
        logits: of the codes, in dimension 1.
        temperature: above 0; near 0 the samples are nearly one-hot.
        hard: one-hot samples; gradients are those of the soft ones (straight-through).
        generator: of the noise; None: the global one.
    """
    # -log of an exponential variable is a Gumbel variable.
    noise = -torch.empty_like(logits).exponential_(generator=generator).log()
    soft = ((logits + noise) / temperature).softmax(dim=1)
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
    return one_hot - soft.detach() + soft


def divergence_from_uniform(logits: Float[Tensor, "B K h w"]) -> Float[Tensor, ""]:
    """KL(q || uniform) in nats: summed over the grid of a picture, then the mean over pictures.

    It is between 0 and h w ln K. (``F.kl_div`` with a prior of one row and ``batchmean`` divides
    by that row's 1 and so sums over the batch.)
    """
    log_q = logits.log_softmax(dim=1)
    per_cell = (log_q.exp() * log_q).sum(dim=1) + math.log(logits.shape[1])
    return per_cell.sum(dim=(1, 2)).mean()


def imbalance(logits: Float[Tensor, "B K h w"]) -> Float[Tensor, ""]:
    """How far the codes' mean probabilities are from equal: ln K minus their entropy, in nats.

    0 when all codes are equally frequent, however sure each cell is; ln K when one code has all.
    Weighed against the reconstruction error it keeps a codebook from collapsing.
    """
    mean = logits.softmax(dim=1).mean(dim=(0, 2, 3))
    return math.log(logits.shape[1]) + torch.xlogy(mean, mean).sum()


def annealed(
    step: int | float, steps: int | float, start: float = 1.0, end: float = 1 / 16
) -> float:
    """Half a cosine from ``start`` at step 0 to ``end`` at ``steps`` and after.

    With the default values the temperature of Ramesh et al. 2021, A.2.
    """
    done = min(max(step / steps, 0.0), 1.0) if steps > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class CodeUse:
    """How much of a codebook some pictures use.

    Attributes:
        share: of the codes, those that occur at all.
        perplexity: e to the entropy of their frequencies: as many codes as equally frequent ones
            would give the same entropy.
    """

    share: float
    perplexity: float


def code_use(codes: Int64[Tensor, "*grid"], count: int) -> CodeUse:
    """The use of a codebook of ``count`` codes.

    Raises:
        ValueError: no code, or one that is not in 0 .. count - 1.
    """
    if codes.numel() == 0:
        raise ValueError("there are no codes to count")
    if int(codes.min()) < 0 or int(codes.max()) >= count:
        raise ValueError(f"codes must be in 0 .. {count - 1}")
    counts = torch.bincount(codes.flatten(), minlength=count).double()
    p = counts / counts.sum()
    entropy = -torch.xlogy(p, p).sum()
    return CodeUse(float((counts > 0).double().mean()), float(entropy.exp()))
