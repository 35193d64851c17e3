"""Gated multimodal unit: each feature of the output is drawn from the modality that knows it best.

Source: Arevalo et al. 2017, Gated Multimodal Units for Information Fusion, equations 1 to 5.
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


class GatedFusion(Fusion):
    """``sum_m z_m * tanh(W_m x_m)``, the gates ``z`` a softmax over modalities, feature by feature.

    The gates see all modalities: ``z = softmax_m(U_m [x1; ...; xn])``. With two modalities that is
    the paper's ``z tanh(W1 x1) + (1 - z) tanh(W2 x2)`` with ``z = sigmoid((U1 - U2) [x1; x2])``.
    The paper's n-modal unit has sigmoid gates that compete for nothing; softmax keeps the two-modal
    form's sum of one, also when a modality is absent.

    Args:
        widths: features of each modality's pooled vector.
        width: of the output.

    `Fused.parts` stays empty: no token sees another modality.
    """

    pooled_only = True

    def __init__(self, widths: Mapping[str, int], *, width: int = 256) -> None:
        super().__init__()
        self.inputs = PooledInputs(widths)
        self.modalities, self.width = tuple(self.inputs.widths), width
        self.contents = nn.ModuleDict(
            {name: nn.Linear(p, width) for name, p in self.inputs.widths.items()}
        )
        count = len(self.modalities)
        self.gates = nn.Linear(sum(self.inputs.widths.values()), count * width)

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        vectors, there = self.inputs(parts, present)
        contents = torch.stack(
            [self.contents[name](vector) for name, vector in zip(self.modalities, vectors)], dim=1
        )
        scores = self.gates(torch.cat(vectors, dim=-1)).unflatten(-1, (-1, self.width))
        return Fused((share(scores, there) * contents.tanh()).sum(dim=1))

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {"kind": "gated", "widths": self.inputs.widths, "width": self.width}
