"""Deep set: all tokens of all modalities as one set, summed up.

Source: Zaheer et al. 2017, Deep Sets, theorem 2: every function of a set that does not depend on
the order of its elements has the form rho(sum phi(x)).
Shape legend: B samples, N tokens, W the width of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Fused
from plait.fusion.base import Fusion, Parts, Present
from plait.fusion.inputs import TokenInputs, only


class DeepSetFusion(Fusion):
    """``rho(sum phi(token))``, where a token knows its modality and its place.

    ``rho`` begins with a layer norm, so that long texts and fine grids do not merely give large
    sums.

    Args:
        token_widths: features of each modality's tokens.
        width: of the output.
        hidden: features inside ``phi`` and ``rho``; twice ``width`` when None.

    `Fused.parts` stays empty: no token sees another.
    """

    def __init__(
        self, token_widths: Mapping[str, int], *, width: int = 256, hidden: int | None = None
    ) -> None:
        super().__init__()
        self.inputs = TokenInputs(token_widths, width)
        self.modalities, self.width = tuple(self.inputs.widths), width
        self.hidden = hidden or 2 * width
        self.phi = nn.Sequential(
            nn.Linear(width, self.hidden), nn.GELU(), nn.Linear(self.hidden, width)
        )
        self.rho = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, self.hidden),
            nn.GELU(),
            nn.Linear(self.hidden, width),
        )

    @property
    def keeps(self) -> tuple[str, ...]:
        """None: no token sees another."""
        return ()

    def forward(self, parts: Parts, present: Present) -> Fused:
        """See `Fusion.forward`."""
        sums: list[Tensor] = [
            only(self.phi(part.values), part.real).sum(dim=1)
            for part in self.inputs(parts, present).values()
        ]
        return Fused(self.rho(torch.stack(sums).sum(dim=0)))

    def spec(self) -> dict[str, Any]:
        """See `Fusion.spec`."""
        return {
            "kind": "deep_set",
            "token_widths": self.inputs.widths,
            "width": self.width,
            "hidden": self.hidden,
        }
