"""The layers of a Q-Former: BERT's, with queries that look at pictures (Li et al. 2023, section 3).

Post-norm as in BERT. Every second layer lets the queries look at the picture; queries and words
share self-attention, and each has a feed-forward of its own.

Shape legend: B samples, Q queries, N words, L = Q + N, M tokens of the picture, D features, C of the
picture.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from plait.bridges.base import only
from plait.core.errors import ModelError

EPS = 1e-12


class Attention(nn.Module):
    """Attention with residual and LayerNorm after it.

    Args:
        width: features of what looks.
        context: features of what is looked at.
        heads: of the attention.
        dropout: of the attention's weights and of its output.

    Raises:
        ModelError: heads that do not divide the width.
    """

    def __init__(self, width: int, context: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(f"Q-Former: width {width} is not a multiple of {heads} heads")
        self.heads, self.rate = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context, width)
        self.value = nn.Linear(context, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        context: Float[Tensor, "B M C"],
        seen: Bool[Tensor, "B #L M"],  # noqa: F821  a shape
    ) -> Float[Tensor, "B L D"]:
        """Same shape; who sees nothing finds zeros."""
        blind = ~seen.any(dim=-1)
        query, key, value = (
            self._split(part) for part in (self.query(x), self.key(context), self.value(context))
        )
        # Softmax over nothing is 0/0: who sees nothing looks at all, and gets zeros afterwards.
        mask = (seen | blind[..., None])[:, None]
        rate = self.rate if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate)
        found = only(mixed.transpose(1, 2).flatten(2), ~blind)
        out: Tensor = self.norm(self.dropout(self.out(found)) + x)
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, K, D) to (B, heads, K, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with GELU between, residual and LayerNorm after them.

    Args:
        width: features of a token.
        hidden: features inside.
        dropout: of the output.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Same shape."""
        out: Tensor = self.norm(self.dropout(self.down(F.gelu(self.up(x)))) + x)
        return out


class QFormerLayer(nn.Module):
    """Self-attention of queries and words; the queries look at the picture; feed-forwards.

    Args:
        width: features of queries and words.
        token_width: features of the picture's tokens.
        heads: of each attention.
        hidden: features inside each feed-forward.
        dropout: see `Attention`.
        looks: whether the queries look at the picture in this layer.
        reads: whether there are words, which have a feed-forward of their own.
    """

    def __init__(
        self,
        width: int,
        token_width: int,
        heads: int,
        hidden: int,
        dropout: float,
        *,
        looks: bool,
        reads: bool,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, width, heads, dropout)
        self.cross = Attention(width, token_width, heads, dropout) if looks else None
        self.query_feed_forward = FeedForward(width, hidden, dropout)
        self.text_feed_forward = FeedForward(width, hidden, dropout) if reads else None

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        queries: int,
        seen: Bool[Tensor, "B #L L"],  # noqa: F821  a shape
        media: Float[Tensor, "B M C"] | None,
        media_mask: Bool[Tensor, "B M"] | None,
    ) -> Float[Tensor, "B L D"]:
        """The next layer's states.

        Args:
            x: queries, then words.
            queries: how many of x are queries; 0 for words alone.
            seen: which of x each of x may look at.
            media: tokens of the picture; None for words alone.
            media_mask: False for padding.
        """
        x = self.attention(x, x, seen)
        parts = []
        if queries:
            own = x[:, :queries]
            if self.cross is not None:
                assert media is not None and media_mask is not None
                own = self.cross(own, media, media_mask[:, None])
            parts.append(self.query_feed_forward(own))
        if x.shape[1] > queries:
            assert self.text_feed_forward is not None
            parts.append(self.text_feed_forward(x[:, queries:]))
        return torch.cat(parts, dim=1)
