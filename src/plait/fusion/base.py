"""What every fusion is: the encoded modalities of a batch in, one `Fused` out.

Shape legend: B samples, N tokens, D features of a token, P of a pooled vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from plait.core.batch import Encoded, Fused

Parts = Mapping[str, Encoded]
Present = Mapping[str, Tensor]


class Fusion(nn.Module, ABC):
    """One idea of bringing modalities together.

    The laws that the shared sweep of tests holds all of them to: padding changes nothing, the order
    of samples changes nothing, what an absent modality's tensors hold changes nothing (its absence
    may), and a sample without any modality is refused by the caller, never seen here.

    Attributes:
        width: features of ``Fused.pooled``.
    """

    width: int

    @abstractmethod
    def forward(self, parts: Parts, present: Mapping[str, Bool[Tensor, " B"]]) -> Fused:
        """Fuses encoded modalities.

        Args:
            parts: by modality, as encoders return them.
            present: by modality, (B,) False where the sample lacks it.
        """

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """JSON arguments that rebuild it, with ``kind``."""
