"""Flamingo's gated cross-attention: words look at pictures inside a frozen language model.

Source: Alayrac et al. 2022, section 2.2, figure 4 and appendix A.1.3.
Shape legend: B samples, N words, D their features, M pictures (or videos) of a sample, Q tokens of
one, C their features.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from plait.bridges.base import only
from plait.core.errors import ModelError


def text_time(ids: Int64[Tensor, "B N"], image_token: int) -> Int64[Tensor, "B N"]:
    """How many pictures stand before or at each word: 0 before the first one."""
    return (ids == image_token).cumsum(dim=1)


def visible_media(
    time: Int64[Tensor, "B N"], media_mask: Bool[Tensor, "B M Q"], only_latest: bool = True
) -> Bool[Tensor, "B N K"]:
    """Which of the K = M Q tokens of pictures each word may look at.

    Args:
        time: see `text_time`.
        media_mask: False for padding.
        only_latest: a word sees the latest picture before it; otherwise all before it.
    """
    number = torch.arange(1, media_mask.shape[1] + 1, device=time.device)
    seen = time[..., None] == number if only_latest else time[..., None] >= number
    return (seen[..., None] & media_mask[:, None]).flatten(2)


class GatedCrossAttention(nn.Module):
    """``x + tanh(a) attention(norm(x), media)``, then ``x + tanh(b) feed_forward(x)``; a = b = 0.

    At the start it gives exactly what it gets. Without biases, so that a word without any picture
    before it gets exactly nothing from the attention at any time.

    Args:
        width: features of a word.
        media_width: features of a picture's token.
        heads: of the attention.
        head_width: features of a head.
        hidden: features inside the feed-forward; four times ``width`` when None.

    Raises:
        ModelError: a size below 1.
    """

    def __init__(
        self,
        width: int,
        media_width: int,
        *,
        heads: int = 8,
        head_width: int = 64,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        if min(width, media_width, heads, head_width) < 1:
            raise ModelError("gated cross-attention: widths and heads must be at least 1")
        self.width, self.media_width = width, media_width
        self.heads, self.head_width = heads, head_width
        self.hidden = hidden or 4 * width
        inner = heads * head_width
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(media_width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))
        self.feed_forward = feed_forward(width, self.hidden)
        self.gate_feed_forward = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        media: Float[Tensor, "B M Q C"],
        media_mask: Bool[Tensor, "B M Q"],
        text_time: Int64[Tensor, "B N"],
        only_latest: bool = True,
    ) -> Float[Tensor, "B N D"]:
        """Words after they saw their pictures.

        Args:
            x: words.
            media: pictures in the order of their places in the text.
            media_mask: False for padding, of tokens and of whole pictures.
            text_time: pictures before or at each word, see `text_time`.
            only_latest: a word sees the latest picture before it; otherwise all before it.
        """
        x = x + self.gate.tanh() * self._attend(x, media, media_mask, text_time, only_latest)
        out: Tensor = x + self.gate_feed_forward.tanh() * self.feed_forward(x)
        return out

    def spec(self) -> dict[str, Any]:
        """JSON arguments that rebuild it."""
        return {
            "width": self.width,
            "media_width": self.media_width,
            "heads": self.heads,
            "head_width": self.head_width,
            "hidden": self.hidden,
        }

    def _attend(
        self, x: Tensor, media: Tensor, media_mask: Tensor, time: Tensor, only_latest: bool
    ) -> Tensor:
        seen = visible_media(time, media_mask, only_latest)
        if seen.shape[-1] == 0:
            return torch.zeros_like(x)
        blind = ~seen.any(dim=-1)
        query = self._split(self.query(self.norm(x)))
        tokens = only(media, media_mask).flatten(1, 2)
        key, value = (self._split(part) for part in self.key_value(tokens).chunk(2, dim=-1))
        # Softmax over nothing is 0/0: who sees nothing looks at all, and gets zeros afterwards.
        mask = (seen | blind[..., None])[:, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(only(mixed.transpose(1, 2).flatten(2), ~blind))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, K, heads * d) to (B, heads, K, d)."""
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


def feed_forward(width: int, hidden: int) -> nn.Sequential:
    """LayerNorm and two linear layers without bias, GELU between: Flamingo's, in both its parts."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, hidden, bias=False),
        nn.GELU(),
        nn.Linear(hidden, width, bias=False),
    )
