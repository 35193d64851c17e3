"""BERT's post-norm layers (Devlin et al. 2019), shared by all systems.

Queries, keys and values come from one matrix: one product instead of three, and a layer that is
used in both directions (LXMERT's cross-attention) multiplies each stream once.

Shape legend: B samples, N queries, M keys, D features, I inner features of attention.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.errors import ModelError

EPS = 1e-12


def attend(
    query: Float[Tensor, "B N I"],
    key: Float[Tensor, "B M I"],
    value: Float[Tensor, "B M I"],
    keep: Bool[Tensor, "B M"],
    heads: int,
    dropout: float = 0.0,
) -> Float[Tensor, "B N I"]:
    """Multi-head scaled dot-product attention; zeros where a row has nothing to attend to.

    Args:
        query: what looks.
        key: what is compared.
        value: what is mixed.
        keep: False for keys that are padding.
        heads: I is cut into as many parts.
        dropout: of attention weights.
    """
    b, n, inner = query.shape
    if key.shape[1] == 0:
        return torch.zeros_like(query)
    empty = ~keep.any(dim=1)
    q, k, v = (x.unflatten(2, (heads, inner // heads)).transpose(1, 2) for x in (query, key, value))
    # A row without any key would be NaN after softmax, and so would its gradient.
    mask = (keep | empty[:, None])[:, None, None, :]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    out: Tensor = mixed.transpose(1, 2).reshape(b, n, inner).masked_fill(empty[:, None, None], 0.0)
    return out


class Attention(nn.Module):
    """Attention, then residual and LayerNorm.

    Args:
        width: features of the stream.
        heads: of attention.
        inner: features of queries, keys and values; ``width`` when None (ViLBERT's co-attention
            joins streams of different widths in a third).
        dropout: of attention weights and of the output.
        eps: of LayerNorm.

    Raises:
        ModelError: inner features that the heads don't divide.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        inner: int | None = None,
        dropout: float = 0.1,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        inner = inner or width
        if inner % heads:
            raise ModelError(f"width {inner} of attention is not a multiple of {heads} heads")
        self.heads, self.rate = heads, dropout
        self.qkv = nn.Linear(width, 3 * inner)
        self.out = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def project(self, x: Float[Tensor, "B N D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, N, I)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return query, key, value

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        """`attend` with this layer's heads and, in training, its dropout."""
        return attend(query, key, value, keep, self.heads, self.rate if self.training else 0.0)

    def close(self, mixed: Float[Tensor, "B N I"], x: Tensor) -> Float[Tensor, "B N D"]:
        """Output matrix, residual and LayerNorm."""
        out: Tensor = self.norm(self.dropout(self.out(mixed)) + x)
        return out

    def forward(
        self, x: Float[Tensor, "B N D"], keep: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        """Self-attention."""
        return self.close(self.mix(*self.project(x), keep), x)


class FeedForward(nn.Module):
    """Two linear layers with GELU between, then residual and LayerNorm."""

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.1, eps: float = EPS) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Same shape."""
        out: Tensor = self.norm(self.dropout(self.down(F.gelu(self.up(x)))) + x)
        return out


class Layer(nn.Module):
    """One layer of BERT: self-attention, then feed-forward."""

    def __init__(
        self, width: int, heads: int, hidden: int, *, dropout: float = 0.1, eps: float = EPS
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout=dropout, eps=eps)
        self.feed_forward = FeedForward(width, hidden, dropout=dropout, eps=eps)

    def forward(
        self, x: Float[Tensor, "B N D"], keep: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        """Same shape; ``keep`` is False for padding."""
        out: Tensor = self.feed_forward(self.attention(x, keep))
        return out


class WordEmbeddings(nn.Module):
    """Word + position + type 0, then LayerNorm and dropout.

    Args:
        vocabulary: number of words.
        width: of the stream.
        max_length: number of positions.
        types: rows of the type table; regions may take another row of it.
        pad_id: the word whose embedding is not trained.
        fixed_first: position 0 and type 0 are not trained either (LXMERT).
        dropout: after the norm.
        eps: of LayerNorm.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        max_length: int,
        *,
        types: int = 2,
        pad_id: int = 0,
        fixed_first: bool = False,
        dropout: float = 0.1,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        first = 0 if fixed_first else None
        self.words = nn.Embedding(vocabulary, width, padding_idx=pad_id)
        self.positions = nn.Embedding(max_length, width, padding_idx=first)
        self.types = nn.Embedding(types, width, padding_idx=first)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def sums(self, ids: Int64[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """The sum alone, before norm and dropout."""
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        out: Tensor = self.words(ids) + self.positions(places) + self.types(torch.zeros_like(ids))
        return out

    def forward(self, ids: Int64[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Embeds words."""
        out: Tensor = self.dropout(self.norm(self.sums(ids)))
        return out


class Pooler(nn.Module):
    """A linear layer and tanh (BERT) or ReLU (ViLBERT) over the first token."""

    def __init__(self, width: int, out: int | None = None, *, relu: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out or width)
        self.relu = relu

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B P"]:
        """(B, N, D) to one vector a sample."""
        x = self.linear(tokens[:, 0])
        return x.relu() if self.relu else x.tanh()


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """BERT's start: normal matrices and tables, zero biases and padding rows, unit norms."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()
