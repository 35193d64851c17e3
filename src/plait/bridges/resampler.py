"""Flamingo's perceiver resampler: any number of tokens, of one picture or of frames, to a fixed one.

Source: Alayrac et al. 2022, section 2.1 and appendix A.1.1 (figure 5).
Shape legend: B samples, N tokens of the encoder, D their features, T frames, Q latents, W features
of the result.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from plait.bridges.base import Bridge, only
from plait.bridges.gated import feed_forward
from plait.core.batch import Encoded
from plait.core.errors import ModelError


class ResamplerLayer(nn.Module):
    """Latents look at the media and at themselves, then a feed-forward; both with residuals.

    Args:
        width: features of both.
        heads: of the attention.
        head_width: features of a head.
        hidden: features inside the feed-forward.
    """

    def __init__(self, width: int, heads: int, head_width: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        inner = heads * head_width
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.feed_forward = feed_forward(width, hidden)

    def forward(
        self,
        latents: Float[Tensor, "B Q D"],
        media: Float[Tensor, "B N D"],
        mask: Bool[Tensor, "B N"],
    ) -> Float[Tensor, "B Q D"]:
        """Latents of the next layer; ``mask`` is False for media that are padding."""
        own = self.norm_latents(latents)
        joined = torch.cat([self.norm_media(media), own], dim=1)
        seen = torch.cat([mask, mask.new_ones(latents.shape[:2])], dim=1)[:, None, None]
        query = self._split(self.query(own))
        key, value = (self._split(part) for part in self.key_value(joined).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        latents = latents + self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = latents + self.feed_forward(latents)
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, K, heads * d) to (B, heads, K, d)."""
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


class ResamplerBridge(Bridge):
    """Learned latents that gather what the encoder's tokens hold.

    Args:
        token_width: features of the encoder's tokens, in which it works.
        width: features of what it gives: where they differ from ``token_width``, a linear layer
            follows. Flamingo has none, as its gated cross-attention takes media of any width.
        latents: how many tokens it gives.
        layers: of attention and feed-forward.
        heads: of each attention.
        head_width: features of a head.
        hidden: features inside each feed-forward; four times ``token_width`` when None.
        frames: of the longest video in training, each with a learned embedding of its time; 0
            for pictures alone, without embeddings of time.

    Raises:
        ModelError: a size below 1.
    """

    kind = "resampler"

    def __init__(
        self,
        token_width: int,
        width: int,
        *,
        latents: int = 64,
        layers: int = 6,
        heads: int = 8,
        head_width: int = 64,
        hidden: int | None = None,
        frames: int = 0,
    ) -> None:
        super().__init__()
        if min(token_width, width, latents, layers, heads, head_width) < 1 or frames < 0:
            raise ModelError(
                f"bridge {self.kind!r}: widths, latents, layers and heads must be at least 1,"
                " frames at least 0"
            )
        self.token_width, self.width, self.hidden = token_width, width, hidden or 4 * token_width
        self.heads, self.head_width, self.frames = heads, head_width, frames
        self.latents = nn.Parameter(torch.randn(latents, token_width))
        self.times = nn.Parameter(torch.randn(frames, token_width)) if frames else None
        self.layers = nn.ModuleList(
            ResamplerLayer(token_width, heads, head_width, self.hidden) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(token_width)
        self.project: nn.Module = (
            nn.Identity() if width == token_width else nn.Linear(token_width, width)
        )

    def forward(
        self, encoded: Encoded, frames: int = 1
    ) -> tuple[Float[Tensor, "B Q W"], Bool[Tensor, "B Q"]]:
        """See `Bridge.forward`.

        Args:
            encoded: tokens (B, T N, D): those of the first frame, then of the second, and so on.
            frames: T; 1 for pictures, which are videos of one frame. More than it was built for
                are allowed: embeddings of time are then interpolated.

        Raises:
            ModelError: tokens of another width, or a number of them that the frames do not divide.
        """
        media = self.real(encoded) + self._times(encoded.tokens.shape[1], frames)
        latents = self.latents.expand(len(media), -1, -1)
        for layer in self.layers:
            latents = layer(latents, media, encoded.mask)
        kept = encoded.mask.any(dim=1)[:, None].expand(latents.shape[:2])
        return only(self.project(self.norm(latents)), kept), kept

    def count(self, tokens: int) -> int:
        """The latents, for any number."""
        return len(self.latents)

    def spec(self) -> dict[str, Any]:
        """See `Bridge.spec`."""
        return {
            "kind": self.kind,
            "token_width": self.token_width,
            "width": self.width,
            "latents": len(self.latents),
            "layers": len(self.layers),
            "heads": self.heads,
            "head_width": self.head_width,
            "hidden": self.hidden,
            "frames": self.frames,
        }

    def _times(self, tokens: int, frames: int) -> Tensor:
        """What to add to each token: (T N, D) or zero."""
        if frames < 1 or tokens % frames:
            raise ModelError(
                f"bridge {self.kind!r} got {tokens} tokens of {frames} frames: each frame must"
                " have the same number of tokens"
            )
        if self.times is None:
            if frames > 1:
                raise ModelError(
                    f"bridge {self.kind!r} was built for pictures and got {frames} frames: build it"
                    f" with frames={frames}"
                )
            return self.latents.new_zeros(())
        times = self.times[:frames]
        if frames > self.frames:  # as Flamingo, trained on 8 frames, is asked with 30
            grid = self.times.T[None]
            times = F.interpolate(grid, size=frames, mode="linear", align_corners=True)[0].T
        return times.repeat_interleave(tokens // frames, dim=0)
