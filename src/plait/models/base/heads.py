"""What reads a fused representation: answers, classes, matching; and hidden words and regions.

Shape legend: B samples, K positions, D features, C outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        about: what evaluations must know of the task: ``label`` (which of the samples' labels holds
            the class), ``text`` (the template of its texts), ``loss``.
    """

    def __init__(
        self,
        width: int,
        labels: Sequence[str],
        *,
        hidden: int | None = None,
        dropout: float = 0.1,
        about: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.about = dict(about or {})
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
        """The arguments of `head_from_spec` that make it again."""
        return {
            "kind": "labels",
            "width": self.width,
            "labels": list(self.labels),
            "hidden": self.hidden,
            "dropout": self.dropout,
            "about": self.about,
        }


class TokenHead(nn.Module):
    """Linear, GELU, LayerNorm, linear on single tokens: what was hidden there (Devlin et al. 2019).

    Args:
        width: features of a fused token.
        outputs: vocabulary for words, features of a region for regions.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.width, self.outputs = width, outputs
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, outputs)
        )

    def forward(self, tokens: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        """(..., D) to (..., C)."""
        out: Tensor = self.layers(tokens)
        return out

    def spec(self) -> dict[str, Any]:
        """The arguments of `head_from_spec` that make it again."""
        return {"kind": "tokens", "width": self.width, "outputs": self.outputs}


AnyHead = Head | TokenHead


def head_from_spec(spec: dict[str, Any]) -> AnyHead:
    """The head that ``spec()`` described, with random weights."""
    arguments = {key: value for key, value in spec.items() if key != "kind"}
    return TokenHead(**arguments) if spec["kind"] == "tokens" else Head(**arguments)
