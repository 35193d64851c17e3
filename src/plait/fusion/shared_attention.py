"""Shared-space attention: all tokens of all modalities in one transformer, from its first layer.

Source: the single stream of Li et al. 2019 (VisualBERT), here over the tokens of any encoders.
Shape legend: B samples, N tokens, W the width of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plait.core.batch import Fused
from plait.fusion.base import Fusion, Parts, Present
from plait.fusion.inputs import TokenInputs
from plait.fusion.joint import JointLayers


class SharedAttentionFusion(Fusion):
    """Every token attends to every token; pooled is a class token.

    Args:
        token_widths: features of each modality's tokens.
        width: of the transformer and of the output.
        layers: how many.
        heads: of each attention.
        hidden: features inside each MLP; four times ``width`` when None.
    """

    def __init__(
        self,
        token_widths: Mapping[str, int],
        *,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = TokenInputs(token_widths, width)
        self.modalities, self.width = tuple(self.inputs.widths), width
        self.layers, self.heads, self.hidden = layers, heads, hidden or 4 * width
        self.joint = JointLayers(layers, width, heads, self.hidden)

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        fused: Fused = self.joint(self.inputs(parts, present))
        return fused

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {
            "kind": "shared_attention",
            "token_widths": self.inputs.widths,
            "width": self.width,
            "layers": self.layers,
            "heads": self.heads,
            "hidden": self.hidden,
        }
