"""Feature-level fusion: pooled vectors side by side, then a small network.

Shape legend: B samples, M modalities, P features of a pooled vector, W the width of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Fused
from plait.fusion.base import Fusion, Parts, Present
from plait.fusion.inputs import PooledInputs


class ConcatFusion(Fusion):
    """``MLP([W1 x1; ...; Wn xn])``; a learned vector stands in for an absent modality.

    Args:
        widths: features of each modality's pooled vector.
        width: of the projections and of the output.
        hidden: features inside the MLP; twice ``width`` when None.

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
        self.projections = nn.ModuleDict(
            {name: nn.Linear(p, width) for name, p in self.inputs.widths.items()}
        )
        self.absent = nn.Parameter(0.02 * torch.randn(len(self.modalities), width))
        self.mlp = nn.Sequential(
            nn.Linear(len(self.modalities) * width, self.hidden),
            nn.GELU(),
            nn.Linear(self.hidden, width),
        )

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        vectors, there = self.inputs(parts, present)
        projected: list[Tensor] = [
            self.projections[name](vector) for name, vector in zip(self.modalities, vectors)
        ]
        filled = torch.where(there[..., None], torch.stack(projected, dim=1), self.absent)
        return Fused(self.mlp(filled.flatten(1)))

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {
            "kind": "concat",
            "widths": self.inputs.widths,
            "width": self.width,
            "hidden": self.hidden,
        }
