"""Attention from one sequence to another, and masks that never leave a query without a key.

Shape legend: B samples, N tokens that ask, K tokens that are looked at, D and C their features.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.errors import ModelError
from plait.nn.transformer import Block, Mlp


def visible(real: Bool[Tensor, "B K"]) -> Bool[Tensor, "B 1 1 K"]:
    """The mask to attend with. A row without any real key sees all.

    Softmax over nothing is 0/0, and kernels differ in what they make of it (zero, NaN). What such
    a row's queries find is meaningless; the caller leaves it out.
    """
    return (real | ~real.any(dim=1, keepdim=True))[:, None, None, :]


class CrossAttention(nn.Module):
    """Multi-head attention: queries of one sequence, keys and values of another.

    Args:
        width: features of the tokens that ask, and of the answer.
        context: features of the tokens that are looked at.
        heads: of the attention.
        inner: features of all heads together; ``width`` when None.

    Raises:
        ModelError: the heads do not divide the inner width.
    """

    def __init__(self, width: int, context: int, heads: int, inner: int | None = None) -> None:
        super().__init__()
        inner = width if inner is None else inner
        if inner % heads:
            raise ModelError(f"width {inner} is not a multiple of {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, inner)
        self.key_value = nn.Linear(context, 2 * inner)
        self.out = nn.Linear(inner, width)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        context: Float[Tensor, "B K C"],
        real: Bool[Tensor, "B K"],
    ) -> Float[Tensor, "B N D"]:
        """What each token finds; zero in rows whose context holds no real token."""
        q = self._split(self.query(x))
        k, v = (self._split(part) for part in self.key_value(context).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible(real))
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return torch.where(real.any(dim=1)[:, None, None], out, torch.zeros_like(out))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, heads * d) to (B, heads, N, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class CrossBlock(nn.Module):
    """``x + cross_attention(norm(x), norm(context))``, then ``x + mlp(norm(x))``.

    Args:
        width: features of both sequences.
        heads: of the attention.
        hidden: features inside the MLP.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)
        self.attention = CrossAttention(width, width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, "gelu")

    def forward(self, x: Tensor, context: Tensor, real: Tensor) -> Tensor:
        """(B, N, D), (B, K, D), (B, K) to (B, N, D)."""
        x = x + self.attention(self.norm(x), self.norm_context(context), real)
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


def self_blocks(count: int, width: int, heads: int, hidden: int) -> nn.ModuleList:
    """Blocks of self-attention with torch's initial weights."""
    return nn.ModuleList(Block(width, heads, hidden, "gelu", 1e-5) for _ in range(count))
