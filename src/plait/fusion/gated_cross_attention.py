"""Gated cross-attention: one modality asks the others, through gates that start shut.

Source: Alayrac et al. 2022 (Flamingo), section 2.2 and figure 4.
Shape legend: B samples, N tokens that ask, K tokens of the others, D features of the tokens that
ask, W the inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Encoded, Fused
from plait.core.errors import ModelError, did_you_mean
from plait.core.modality import TEXT
from plait.fusion.attention import CrossAttention
from plait.fusion.base import Fusion, Parts, Present
from plait.fusion.inputs import TokenInputs, check_parts, only, ordered
from plait.nn.transformer import Mlp


class GatedCrossBlock(nn.Module):
    """``x + tanh(a) attention(norm(x), context)``, then ``x + tanh(b) mlp(norm(x))``; a = b = 0.

    Args:
        width: features of the tokens that ask.
        context: features of the tokens that are looked at.
        inner: features of all heads together.
        heads: of the attention.
        hidden: features inside the MLP.
    """

    def __init__(self, width: int, context: int, inner: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = CrossAttention(width, context, heads, inner)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, "gelu")
        self.gate = nn.Parameter(torch.zeros(()))
        self.gate_mlp = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: Tensor, real: Tensor) -> Tensor:
        """(B, N, D), (B, K, C), (B, K) to (B, N, D); unchanged while both gates are 0."""
        x = x + self.gate.tanh() * self.attention(self.norm(x), context, real)
        out: Tensor = x + self.gate_mlp.tanh() * self.mlp(self.norm_mlp(x))
        return out


class GatedCrossAttentionFusion(Fusion):
    """The asking modality's tokens and pooled vector, changed by what they find in the others.

    At the start the gates are shut, and `Fused` is exactly what the asking encoder said: its
    tokens, and its pooled vector (through a linear layer only where that differs in width from a
    token). The pooled vector asks like one more token; a learned one stands in for it in samples
    that lack the asking modality.

    Args:
        widths: features of each modality's pooled vector.
        token_widths: features of each modality's tokens.
        width: inner width, of the attention and of the others' projected tokens. The output has
            the width of the asking modality's tokens.
        layers: how many blocks.
        heads: of each attention.
        hidden: features inside each MLP; four times the asking tokens' when None.
        asks: the modality that asks; only it is in `Fused.parts`.

    Raises:
        ModelError: ``asks`` is not among the modalities.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        token_widths: Mapping[str, int],
        *,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        hidden: int | None = None,
        asks: str = TEXT,
    ) -> None:
        super().__init__()
        self.widths, self.token_widths = ordered(widths), ordered(token_widths)
        self.modalities = tuple(self.widths)
        if asks not in self.modalities:
            raise ModelError(
                f"fusion 'gated_cross_attention': asks is {asks!r}, which is not among"
                f" {', '.join(self.modalities)}{did_you_mean(asks, self.modalities)}"
            )
        self.asks, self.inner, self.heads = asks, width, heads
        self.width = self.token_widths[asks]
        self.hidden = hidden or 4 * self.width
        pooled = self.widths[asks]
        self.start: nn.Module = (
            nn.Identity() if pooled == self.width else nn.Linear(pooled, self.width)
        )
        self.absent = nn.Parameter(0.02 * torch.randn(self.width))
        others = {name: d for name, d in self.token_widths.items() if name != asks}
        self.inputs = TokenInputs(others, width, least=1)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            GatedCrossBlock(self.width, width, width, heads, self.hidden) for _ in range(layers)
        )

    @property
    def keeps(self) -> tuple[str, ...]:
        """The one that asks."""
        return (self.asks,)

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        check_parts(parts, self.modalities)
        asking, here = self._asking(parts, present)
        context, real = self._context(parts, present, asking)
        tokens = only(asking.tokens, asking.mask)
        first = self.start(only(asking.pooled, here))
        first = torch.where(here[:, None], first, self.absent)
        x = torch.cat([first[:, None], tokens], dim=1)
        for block in self.blocks:
            x = block(x, context, real)
        after = only(x[:, 1:], asking.mask)
        boxes = None if asking.boxes is None else only(asking.boxes, asking.mask)
        part = Encoded(after, asking.mask, only(x[:, 0], here), boxes)
        return Fused(x[:, 0], {self.asks: part})

    def _asking(self, parts: Parts, present: Present) -> tuple[Encoded, Tensor]:
        """(the asking modality with its real positions, which rows have it)."""
        if self.asks in parts:
            part, here = parts[self.asks], present[self.asks]
            real = part.mask & here[:, None]
            return Encoded(part.tokens, real, part.pooled, part.boxes), here
        other = next(iter(parts.values()))
        rows = other.mask.shape[0]
        nothing = other.mask.new_zeros(rows, 1)
        tokens = other.tokens.new_zeros(rows, 1, self.width)
        pooled = other.pooled.new_zeros(rows, self.widths[self.asks])
        return Encoded(tokens, nothing, pooled), nothing[:, 0]

    def _context(self, parts: Parts, present: Present, asking: Encoded) -> tuple[Tensor, Tensor]:
        """((B, K, W) tokens of the others, (B, K) which are real)."""
        given = {name: part for name, part in parts.items() if name != self.asks}
        tokens = self.inputs(given, present, like=asking)
        return (
            self.norm(torch.cat([part.values for part in tokens.values()], dim=1)),
            torch.cat([part.real for part in tokens.values()], dim=1),
        )

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {
            "kind": "gated_cross_attention",
            "widths": self.widths,
            "token_widths": self.token_widths,
            "width": self.inner,
            "layers": len(self.blocks),
            "heads": self.heads,
            "hidden": self.hidden,
            "asks": self.asks,
        }
