"""Pre-norm transformer blocks, shared by the CLIP-style towers and the small from-scratch encoders.

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.errors import ModelError, did_you_mean


class QuickGELU(nn.Module):
    """``x sigmoid(1.702 x)``, the approximation that OpenAI's CLIP weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "quick_gelu": QuickGELU,
}


def activation(name: str) -> nn.Module:
    """An activation by name.

    Raises:
        ModelError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ModelError(f"no activation named {name!r}{did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


class Attention(nn.Module):
    """Multi-head self-attention with one fused matrix for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B, N, D) to the same; ``mask`` (B, 1, N or 1, N) is True where a query may look."""
        b, n, _ = x.shape
        # -1, because a pruned module has fewer heads than features / head width (`Narrowed`).
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.act = activation(act)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same."""
        out: Tensor = self.down(self.act(self.up(x)))
        return out


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int, hidden: int, act: str, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, act)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B, N, D) to the same."""
        x = x + self.attention(self.norm1(x), mask, causal)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class AttentionPool(nn.Module):
    """SigLIP's head: a learned query attends to all tokens, then a residual MLP.

    Source: Zhai et al. 2023, after the MAP head of Zhai et al. 2022 (Scaling Vision Transformers).
    """

    def __init__(self, width: int, heads: int, hidden: int, act: str, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.probe = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, act)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, D)."""
        b, n, d = tokens.shape
        head = d // self.heads
        q = self.query(self.probe).reshape(1, 1, self.heads, head).transpose(1, 2)
        q = q.expand(b, -1, -1, -1)
        k, v = self.key_value(tokens).reshape(b, n, 2, self.heads, head).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, d)
        hidden = self.out(mixed)
        out: Tensor = hidden + self.mlp(self.norm(hidden))
        return out


def initialise(blocks: nn.ModuleList, width: int) -> None:
    """CLIP's initial scales (Radford et al. 2021): attention D^-1/2, residual outputs smaller."""
    residual = width**-0.5 * (2 * max(len(blocks), 1)) ** -0.5
    for block in blocks:
        assert isinstance(block, Block)
        nn.init.normal_(block.attention.qkv.weight, std=width**-0.5)
        nn.init.normal_(block.attention.out.weight, std=residual)
        nn.init.normal_(block.mlp.up.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(block.mlp.down.weight, std=residual)
        for linear in (block.attention.qkv, block.attention.out, block.mlp.up, block.mlp.down):
            nn.init.zeros_(linear.bias)
