"""Co-attention: a stream for each modality, each asking the others in every layer.

Source: Lu et al. 2019 (ViLBERT), section 3.1, here with norms before the layers and for any number
of modalities: keys and values are the tokens of all others.
Shape legend: B samples, N tokens of a stream, K of the others, W the width of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Encoded, Fused
from plait.core.errors import ModelError, did_you_mean
from plait.fusion.attention import CrossBlock, visible
from plait.fusion.base import Fusion, Parts, Present
from plait.fusion.inputs import TokenInputs, only
from plait.nn.transformer import Block

JOINS = ("product", "sum")


class _Stream(nn.Module):
    """One modality's part of a layer: ask the others, then itself."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.cross = CrossBlock(width, heads, hidden)
        self.own = Block(width, heads, hidden, "gelu", 1e-5)

    def forward(self, x: Tensor, real: Tensor, others: Tensor, others_real: Tensor) -> Tensor:
        out: Tensor = self.own(self.cross(x, others, others_real), visible(real))
        return out


class CoAttentionFusion(Fusion):
    """Streams that attend to one another; pooled joins a class token of each.

    Every stream reads the others as they were before the layer, so that none is first. A sample
    that lacks all the others adds nothing in cross-attention.

    Args:
        token_widths: features of each modality's tokens.
        width: of the streams and of the output.
        layers: each of one cross-attention and one self-attention a stream.
        heads: of each attention.
        hidden: features inside each MLP; four times ``width`` when None.
        join: of the streams' class tokens, after a linear layer and ReLU each: ``product`` or
            ``sum``. An absent modality counts as 1 or 0.

    Raises:
        ModelError: an unknown ``join``.
    """

    def __init__(
        self,
        token_widths: Mapping[str, int],
        *,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        hidden: int | None = None,
        join: str = "product",
    ) -> None:
        super().__init__()
        if join not in JOINS:
            raise ModelError(
                f"fusion 'co_attention': join is {join!r}; it can be {' or '.join(JOINS)}"
                f"{did_you_mean(join, JOINS)}"
            )
        self.inputs = TokenInputs(token_widths, width)
        self.modalities, self.width = tuple(self.inputs.widths), width
        self.heads, self.hidden, self.join = heads, hidden or 4 * width, join
        self.class_tokens = nn.Parameter(0.02 * torch.randn(len(self.modalities), width))
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: _Stream(width, heads, self.hidden) for name in self.modalities})
            for _ in range(layers)
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in self.modalities})
        self.poolers = nn.ModuleDict({name: nn.Linear(width, width) for name in self.modalities})

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        tokens = self.inputs(parts, present)
        x, real = {}, {}
        for number, (name, part) in enumerate(tokens.items()):
            start = self.class_tokens[number].expand(part.real.shape[0], 1, -1)
            x[name] = torch.cat([start, part.values], dim=1)
            real[name] = torch.cat([part.present[:, None], part.real], dim=1)
        for layer in self.layers:
            x = self._layer(layer, x, real)
        found: dict[str, Encoded] = {}
        for name, part in tokens.items():
            stream = self.norms[name](x[name])
            pooled = self.poolers[name](stream[:, 0]).relu()
            found[name] = part.encoded(stream[:, 1:], pooled)
        return Fused(self._joined(found, [part.present for part in tokens.values()]), found)

    @staticmethod
    def _layer(
        layer: nn.Module, x: dict[str, Tensor], real: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        assert isinstance(layer, nn.ModuleDict)
        after = {}
        for name, stream in layer.items():
            others = [other for other in x if other != name]
            after[name] = stream(
                x[name],
                real[name],
                torch.cat([x[other] for other in others], dim=1),
                torch.cat([real[other] for other in others], dim=1),
            )
        return after

    def _joined(self, found: Mapping[str, Encoded], there: list[Tensor]) -> Tensor:
        vectors = torch.stack([part.pooled for part in found.values()], dim=1)
        present = torch.stack(there, dim=1)
        if self.join == "sum":
            return only(vectors, present).sum(dim=1)
        neutral = torch.where(present[..., None], vectors, torch.ones_like(vectors))
        return neutral.prod(dim=1)

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {
            "kind": "co_attention",
            "token_widths": self.inputs.widths,
            "width": self.width,
            "layers": len(self.layers),
            "heads": self.heads,
            "hidden": self.hidden,
            "join": self.join,
        }
