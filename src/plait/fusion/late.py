"""Late fusion: every modality decides for itself, and the decisions are averaged with weights.

Shape legend: B samples, M modalities, P features of a pooled vector, W the width of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from plait.core.batch import Fused
from plait.fusion.base import Fusion, Parts, Present
from plait.fusion.inputs import PooledInputs, share


class LateFusion(Fusion):
    """``sum_m a_m h_m(x_m)``: a head for each modality, weights learned for the whole data.

    ``a`` is the softmax of one learned number a modality, over those that the sample has. A linear
    output layer after it gives exactly the same weighted average of per-modality logits, as
    ``V sum_m a_m h_m + b = sum_m a_m (V h_m + b)``: no modality's decision depends on another.

    Args:
        widths: features of each modality's pooled vector.
        width: of the heads' outputs, and of the fused one.
        hidden: features inside each head; twice ``width`` when None.

    `Fused.parts` stays empty: no token sees another modality.
    """

    pooled_only = True

    def __init__(
        self, widths: Mapping[str, int], *, width: int = 256, hidden: int | None = None
    ) -> None:
        super().__init__()
        self.inputs = PooledInputs(widths)
        self.modalities, self.width = tuple(self.inputs.widths), width
        self.hidden = hidden or 2 * width
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(p, self.hidden), nn.GELU(), nn.Linear(self.hidden, width)
                )
                for name, p in self.inputs.widths.items()
            }
        )
        self.scores = nn.Parameter(torch.zeros(len(self.modalities)))

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        vectors, there = self.inputs(parts, present)
        decisions = torch.stack(
            [self.heads[name](vector) for name, vector in zip(self.modalities, vectors)], dim=1
        )
        weights = share(self.scores.expand_as(there), there)
        return Fused((weights[..., None] * decisions).sum(dim=1))

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {
            "kind": "late",
            "widths": self.inputs.widths,
            "width": self.width,
            "hidden": self.hidden,
        }
