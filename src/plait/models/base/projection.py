"""From an encoder's pooled vector into the shared space.

Shape legend: B samples, D features of the encoder, E of the shared space.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from plait.core.errors import ModelError, did_you_mean

KINDS = ("linear", "mlp", "identity")


class Projection(nn.Module):
    """Base of projections: ``width`` features in, ``dim`` out.

    Attributes:
        kind: its name in recipes and saved models.
    """

    kind: str
    heads: int = 1
    """Blocks of equal length that the output is made of."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.width, self.dim = width, dim

    def spec(self) -> dict[str, Any]:
        """The arguments of `build_projection` that make it again."""
        return {"kind": self.kind, "width": self.width, "dim": self.dim}


class LinearProjection(Projection):
    """Dropout, then one matrix.

    With several heads it is an ensemble in one matrix: each head has its own dropout and its own
    ``dim / heads`` features, brought to equal length, and contrastive tasks compare head with
    head. The cosine of two vectors is then the mean of their heads' cosines.

    Args:
        width, dim: see `Projection`.
        bias: add a bias.
        dropout: share of the features zeroed in training.
        heads: how many; it divides ``dim``.
    """

    kind = "linear"

    def __init__(
        self, width: int, dim: int, *, bias: bool = True, dropout: float = 0.0, heads: int = 1
    ) -> None:
        if heads < 1 or dim % heads:
            raise ModelError(f"{heads} heads do not divide the shared space's {dim} features")
        super().__init__(width, dim)
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, dim, bias=bias)

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """(B, D) to (B, E)."""
        if self.heads == 1:
            out: Tensor = self.linear(self.dropout(pooled))
            return out
        if self.training and self.dropout.p > 0:
            out = self._apart(pooled)
        else:
            out = self.linear(pooled)
        blocks = nn.functional.normalize(out.unflatten(1, (self.heads, -1)), dim=-1)
        return blocks.flatten(1)

    def _apart(self, pooled: Tensor) -> Tensor:
        """Every head sees features of its own, as in an ensemble trained apart."""
        weights = self.linear.weight.chunk(self.heads)
        biases: list[Tensor | None] = [None] * self.heads
        if self.linear.bias is not None:
            biases = list(self.linear.bias.chunk(self.heads))
        parts = [
            nn.functional.linear(self.dropout(pooled), weight, bias)
            for weight, bias in zip(weights, biases, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def spec(self) -> dict[str, Any]:
        """See `Projection.spec`."""
        bias = self.linear.bias is not None
        return super().spec() | {"bias": bias, "dropout": self.dropout.p, "heads": self.heads}


class MlpProjection(Projection):
    """``h = W1 x``; ``norm(h + dropout(W2 gelu(h)))``: the residual head of many tutorials."""

    kind = "mlp"

    def __init__(self, width: int, dim: int, *, dropout: float = 0.1) -> None:
        super().__init__(width, dim)
        self.enter = nn.Linear(width, dim)
        self.inner = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """(B, D) to (B, E)."""
        entered = self.enter(pooled)
        inner = self.dropout(self.inner(nn.functional.gelu(entered)))
        out: Tensor = self.norm(entered + inner)
        return out

    def spec(self) -> dict[str, Any]:
        """See `Projection.spec`."""
        return super().spec() | {"dropout": self.dropout.p}


class IdentityProjection(Projection):
    """The encoder's vector as it is."""

    kind = "identity"

    def __init__(self, width: int, dim: int) -> None:
        if width != dim:
            raise ModelError(
                f"projection 'identity' keeps the encoder's {width} features, but the shared space"
                f" has {dim}; use 'linear', or set dim to {width}"
            )
        super().__init__(width, dim)

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The same."""
        return pooled


def build_projection(kind: str, width: int, dim: int, **options: Any) -> Projection:
    """A projection by name: ``linear`` (bias, dropout, heads), ``mlp`` (dropout), ``identity``.

    Raises:
        ModelError: an unknown name or option.
    """
    classes = {"linear": LinearProjection, "mlp": MlpProjection, "identity": IdentityProjection}
    if kind not in classes:
        raise ModelError(
            f"no projection {kind!r}{did_you_mean(kind, classes)} (have: {', '.join(KINDS)})"
        )
    try:
        return classes[kind](width, dim, **options)
    except TypeError as problem:
        raise ModelError(f"projection {kind!r}: {str(problem).split(') ')[-1]}") from problem
