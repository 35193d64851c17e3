"""What reads a fused representation: answers, classes, matching.

Shape legend: B samples, D features, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Module):
    """Linear, GELU, LayerNorm, linear: (B, D) to (B, C) logits.

    The form of VisualBERT's, UNITER's and LXMERT's answer heads.

    Args:
        width: features in.
        labels: what each logit stands for.
        hidden: features between; twice ``width`` when None.
        dropout: before the last layer, in training.
    """

    def __init__(
        self,
        width: int,
        labels: Sequence[str],
        *,
        hidden: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.labels, self.dropout = width, tuple(labels), dropout
        self.hidden = hidden or 2 * width
        self.layers = nn.Sequential(
            nn.Linear(width, self.hidden),
            nn.GELU(),
            nn.LayerNorm(self.hidden),
            nn.Dropout(dropout),
            nn.Linear(self.hidden, len(self.labels)),
        )

    def forward(self, vectors: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """Logits."""
        out: Tensor = self.layers(vectors)
        return out

    def spec(self) -> dict[str, Any]:
        """The arguments that make it again."""
        return {
            "width": self.width,
            "labels": list(self.labels),
            "hidden": self.hidden,
            "dropout": self.dropout,
        }
