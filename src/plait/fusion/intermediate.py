"""Intermediate fusion: modalities go their own way for k layers, then together.

Shape legend: B samples, N tokens, W the width of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from plait.core.batch import Fused
from plait.core.errors import ModelError
from plait.fusion.attention import self_blocks, visible
from plait.fusion.base import Fusion, Parts, Present
from plait.fusion.inputs import TokenInputs, Tokens
from plait.fusion.joint import JointLayers


class IntermediateFusion(Fusion):
    """Transformer layers of each modality's own, then joint ones; pooled is a class token.

    Args:
        token_widths: features of each modality's tokens.
        width: of the transformers and of the output.
        layers: own and joint ones together.
        fuse_at: k, how many of them are a modality's own. 0 is shared-space attention from the
            first layer.
        heads: of each attention.
        hidden: features inside each MLP; four times ``width`` when None.

    Raises:
        ModelError: ``fuse_at`` leaves no joint layer, or is negative.
    """

    def __init__(
        self,
        token_widths: Mapping[str, int],
        *,
        width: int = 256,
        layers: int = 4,
        fuse_at: int = 2,
        heads: int = 4,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        check_fuse_at("intermediate", fuse_at, layers)
        self.inputs = TokenInputs(token_widths, width)
        self.modalities, self.width = tuple(self.inputs.widths), width
        self.layers, self.fuse_at, self.heads = layers, fuse_at, heads
        self.hidden = hidden or 4 * width
        self.own = nn.ModuleDict(
            {name: self_blocks(fuse_at, width, heads, self.hidden) for name in self.modalities}
        )
        self.joint = JointLayers(layers - fuse_at, width, heads, self.hidden)

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        tokens = self.inputs(parts, present)
        fused: Fused = self.joint({name: self._alone(name, part) for name, part in tokens.items()})
        return fused

    def _alone(self, name: str, part: Tokens) -> Tokens:
        mask, x = visible(part.real), part.values
        blocks = self.own[name]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            out: Tensor = block(x, mask)
            x = out
        return replace(part, values=x)

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {
            "kind": "intermediate",
            "token_widths": self.inputs.widths,
            "width": self.width,
            "layers": self.layers,
            "fuse_at": self.fuse_at,
            "heads": self.heads,
            "hidden": self.hidden,
        }


def check_fuse_at(kind: str, fuse_at: int, layers: int) -> None:
    """Raises ModelError unless at least one layer is left for fusion."""
    if not 0 <= fuse_at < layers:
        raise ModelError(
            f"fusion {kind!r}: fuse_at is {fuse_at} of {layers} layers; it must be 0 to"
            f" {layers - 1}, so that a layer is left in which modalities meet"
        )
