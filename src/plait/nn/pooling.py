"""Tokens to one vector a sample.

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from plait.core.errors import ModelError, did_you_mean

Tokens = Float[Tensor, "B N D"]
Mask = Bool[Tensor, "B N"]

GEM_POWER = 3.0
"""Power of generalised-mean pooling (Radenovic et al. 2018 start from 3)."""


def mean_pool(tokens: Tokens, mask: Mask) -> Float[Tensor, "B D"]:
    """Mean over real positions; zero for a row without any."""
    weights = mask.to(tokens.dtype)[..., None]
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def max_pool(tokens: Tokens, mask: Mask) -> Float[Tensor, "B D"]:
    """Maximum over real positions."""
    return tokens.masked_fill(~mask[..., None], torch.finfo(tokens.dtype).min).amax(1)


def gem_pool(tokens: Tokens, mask: Mask) -> Float[Tensor, "B D"]:
    """Generalised mean (mean x^p)^(1/p) over real positions; x is clamped to at least 1e-6."""
    return mean_pool(tokens.clamp(min=1e-6) ** GEM_POWER, mask) ** (1 / GEM_POWER)


def first_pool(tokens: Tokens, mask: Mask) -> Float[Tensor, "B D"]:
    """The first position ([CLS])."""
    return tokens[:, 0]


def last_pool(tokens: Tokens, mask: Mask) -> Float[Tensor, "B D"]:
    """The last real position (decoder-only language models)."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * positions).amax(1)
    return tokens[torch.arange(tokens.shape[0], device=tokens.device), last]


POOLS = {
    "mean": mean_pool,
    "max": max_pool,
    "gem": gem_pool,
    "cls": first_pool,
    "last": last_pool,
}


class Pool(nn.Module):
    """Pools by a name, or several joined with ``+`` whose outputs are concatenated.

    Args:
        kind: ``mean``, ``max``, ``gem``, ``cls``, ``last``, or for example ``mean+max``.
        skip: leading tokens (class, registers) that ``mean``, ``max`` and ``gem`` leave out.

    Raises:
        ModelError: an unknown name.
    """

    def __init__(self, kind: str, *, skip: int = 0) -> None:
        super().__init__()
        self.kinds = tuple(kind.split("+"))
        self.skip = skip
        for name in self.kinds:
            if name not in POOLS:
                raise ModelError(
                    f"no pooling named {name!r}{did_you_mean(name, POOLS)} (have: {', '.join(POOLS)})"
                )

    def forward(self, tokens: Tokens, mask: Mask) -> Float[Tensor, "B P"]:
        """(B, N, D) to (B, D times the number of kinds)."""
        parts = []
        for name in self.kinds:
            skip = self.skip if name in ("mean", "max", "gem") else 0
            parts.append(POOLS[name](tokens[:, skip:], mask[:, skip:]))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
