"""Bottleneck fusion: modalities meet only through a few tokens that all of them share.

Source: Nagrani et al. 2021, Attention Bottlenecks for Multimodal Fusion (MBT), section 3.2.
Shape legend: B samples, N tokens, F bottleneck tokens, M modalities, W the width of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Fused
from plait.core.errors import ModelError
from plait.fusion.attention import self_blocks, visible
from plait.fusion.base import Fusion, Parts, Present
from plait.fusion.inputs import TokenInputs, Tokens, share
from plait.fusion.intermediate import check_fuse_at


class BottleneckFusion(Fusion):
    """Own layers for each modality; from layer ``fuse_at`` on each also sees F shared tokens.

    In such a layer every modality updates its own copy of the bottleneck; the copies of those that
    the sample has are averaged (equations 8 and 9). Pooled is the mean of the modalities' class
    tokens, so that a linear classifier after it averages logits, as the paper does.

    Args:
        token_widths: features of each modality's tokens.
        width: of the transformers and of the output.
        layers: of each modality.
        fuse_at: the first layer with the bottleneck, from 0.
        bottlenecks: F; the paper found 4 enough.
        heads: of each attention.
        hidden: features inside each MLP; four times ``width`` when None.

    Raises:
        ModelError: ``fuse_at`` leaves fewer than two layers with the bottleneck (one layer writes
            it, the next reads it), or no bottleneck token.
    """

    def __init__(
        self,
        token_widths: Mapping[str, int],
        *,
        width: int = 256,
        layers: int = 4,
        fuse_at: int = 1,
        bottlenecks: int = 4,
        heads: int = 4,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        check_fuse_at("bottleneck", fuse_at, layers)
        if layers - fuse_at < 2:
            raise ModelError(
                f"fusion 'bottleneck': fuse_at {fuse_at} of {layers} layers leaves one layer with"
                " the bottleneck; it takes one to write it and one to read it"
            )
        if bottlenecks < 1:
            raise ModelError(f"fusion 'bottleneck': bottlenecks is {bottlenecks}; at least 1")
        self.inputs = TokenInputs(token_widths, width)
        self.modalities, self.width = tuple(self.inputs.widths), width
        self.layers, self.fuse_at, self.heads = layers, fuse_at, heads
        self.hidden = hidden or 4 * width
        self.class_tokens = nn.Parameter(0.02 * torch.randn(len(self.modalities), width))
        self.bottleneck = nn.Parameter(0.02 * torch.randn(bottlenecks, width))
        self.own = nn.ModuleDict(
            {name: self_blocks(layers, width, heads, self.hidden) for name in self.modalities}
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in self.modalities})

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        tokens = self.inputs(parts, present)
        x, real = {}, {}
        for number, (name, part) in enumerate(tokens.items()):
            start = self.class_tokens[number].expand(part.real.shape[0], 1, -1)
            x[name] = torch.cat([start, part.values], dim=1)
            real[name] = torch.cat([part.present[:, None], part.real], dim=1)
        weights = _equal_shares(tokens)
        shared = self.bottleneck.expand(weights.shape[0], -1, -1)
        for layer in range(self.layers):
            if layer < self.fuse_at:
                x = {name: self._block(name, layer)(x[name], visible(real[name])) for name in x}
            else:
                x, shared = self._through(layer, x, real, shared, weights)
        streams = {name: self.norms[name](value) for name, value in x.items()}
        starts = torch.stack([stream[:, 0] for stream in streams.values()], dim=1)
        return Fused(
            (weights[..., None] * starts).sum(dim=1),
            {name: part.encoded(streams[name][:, 1:]) for name, part in tokens.items()},
        )

    def _through(
        self,
        layer: int,
        x: dict[str, Tensor],
        real: dict[str, Tensor],
        shared: Tensor,
        weights: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One layer with the bottleneck: (streams, averaged bottleneck)."""
        count = shared.shape[1]
        seen = {
            name: nn.functional.pad(mask, (0, count), value=True) for name, mask in real.items()
        }
        both = {
            name: self._block(name, layer)(torch.cat([x[name], shared], dim=1), visible(seen[name]))
            for name in x
        }
        copies = torch.stack([stream[:, -count:] for stream in both.values()], dim=1)
        averaged = (weights[..., None, None] * copies).sum(dim=1)
        return {name: stream[:, :-count] for name, stream in both.items()}, averaged

    def _block(self, name: str, layer: int) -> nn.Module:
        blocks = self.own[name]
        assert isinstance(blocks, nn.ModuleList)
        return blocks[layer]

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {
            "kind": "bottleneck",
            "token_widths": self.inputs.widths,
            "width": self.width,
            "layers": self.layers,
            "fuse_at": self.fuse_at,
            "bottlenecks": len(self.bottleneck),
            "heads": self.heads,
            "hidden": self.hidden,
        }


def _equal_shares(tokens: Mapping[str, Tokens]) -> Tensor:
    """(B, M) one divided by the number of modalities that the sample has; zero for the others."""
    there = torch.stack([part.present for part in tokens.values()], dim=1)
    values = next(iter(tokens.values())).values
    return share(values.new_zeros(there.shape), there)
