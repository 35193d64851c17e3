"""Self-attention over the tokens of all modalities together: the part that several ideas share.

Shape legend: B samples, N tokens, W the width of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from plait.core.batch import Fused
from plait.fusion.attention import self_blocks, visible
from plait.fusion.inputs import Tokens


class JointLayers(nn.Module):
    """A class token before all tokens, transformer layers over the whole, a last norm.

    Args:
        layers: how many.
        width: of the tokens.
        heads: of each attention.
        hidden: features inside each MLP.
    """

    def __init__(self, layers: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = self_blocks(layers, width, heads, hidden)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Pooled is the class token; parts are the tokens of each modality."""
        rows = next(iter(tokens.values())).real.shape[0]
        start = self.class_token.expand(rows, 1, -1)
        x = torch.cat([start, *(part.values for part in tokens.values())], dim=1)
        real = torch.cat([part.real for part in tokens.values()], dim=1)
        mask = visible(torch.cat([real.new_ones(rows, 1), real], dim=1))
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        counts = [part.real.shape[1] for part in tokens.values()]
        pieces: tuple[Tensor, ...] = x[:, 1:].split(counts, dim=1)
        return Fused(
            x[:, 0],
            {name: part.encoded(piece) for (name, part), piece in zip(tokens.items(), pieces)},
        )
