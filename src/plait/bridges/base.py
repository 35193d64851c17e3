"""What every bridge is: what an encoder saw in, tokens for a language model out.

Shape legend: B samples, N tokens of the encoder, D their features, Q tokens for the language model,
W its features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from plait.core.batch import Encoded
from plait.core.errors import ModelError


class Bridge(nn.Module, ABC):
    """One idea of handing an encoder's tokens to a language model.

    The laws that the shared sweep of tests holds all of them to: what masked tokens hold changes
    nothing, NaN included; the order of samples and their company change nothing; outputs at masked
    positions are zero. A sample without any real token (its picture is absent) gets a mask without
    True.

    Attributes:
        kind: its name in the registry.
        token_width: features of the encoder's tokens, `Encoder.token_width`.
        width: features of what it gives: those of the language model's embeddings for tokens that
            stand among words, any for tokens that gated cross-attention looks at.
    """

    kind: str
    token_width: int
    width: int

    @abstractmethod
    def forward(self, encoded: Encoded) -> tuple[Float[Tensor, "B Q W"], Bool[Tensor, "B Q"]]:
        """Tokens for the language model, and which of them are real.

        Raises:
            ModelError: tokens of another width, or a number of them that it cannot take.
        """

    @abstractmethod
    def count(self, tokens: int) -> int:
        """How many tokens (Q) it gives for ``tokens`` (N) of the encoder.

        Known before any picture is read, so that texts can hold as many placeholders.

        Raises:
            ModelError: a number of tokens that it cannot take.
        """

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """JSON arguments that rebuild it, with ``kind``."""

    def real(self, encoded: Encoded) -> Float[Tensor, "B N D"]:
        """The encoder's tokens with zeros where they are masked.

        Raises:
            ModelError: tokens of another width than it was built for.
        """
        found = encoded.tokens.shape[-1]
        if found != self.token_width:
            raise ModelError(
                f"bridge {self.kind!r} was built for tokens of {self.token_width} features and got"
                f" {found}: build it with token_width={found}, or use the encoder it was made for"
            )
        return only(encoded.tokens, encoded.mask)


def only(values: Tensor, mask: Tensor) -> Tensor:
    """(..., D) values where the (...) mask is True, else 0, in the gradient too.

    Not a product: zero times NaN is NaN.
    """
    return values.masked_fill(~mask[..., None], 0.0)
