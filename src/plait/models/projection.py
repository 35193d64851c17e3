"""From an encoder's pooled vector into the shared space.

Shape legend: B samples, D features of the encoder, E of the shared space.
"""

from __future__ import annotations

from typing import Any

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

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.width, self.dim = width, dim

    def spec(self) -> dict[str, Any]:
        """The arguments of `build_projection` that make it again."""
        return {"kind": self.kind, "width": self.width, "dim": self.dim}


class LinearProjection(Projection):
    """Dropout, then one matrix."""

    kind = "linear"

    def __init__(self, width: int, dim: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__(width, dim)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, dim, bias=bias)

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """(B, D) to (B, E)."""
        out: Tensor = self.linear(self.dropout(pooled))
        return out

    def spec(self) -> dict[str, Any]:
        """See `Projection.spec`."""
        bias = self.linear.bias is not None
        return super().spec() | {"bias": bias, "dropout": self.dropout.p}


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
    """A projection by name: ``linear`` (bias, dropout), ``mlp`` (dropout), ``identity``.

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
