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
Present = Mapping[str, Bool[Tensor, " B"]]


class Fusion(nn.Module, ABC):
    """One idea of bringing modalities together.

    The laws that the shared sweep of tests holds all of them to: padding changes nothing, the order
    of samples and of the mapping changes nothing, what an absent modality's tensors hold changes
    nothing (its absence may). A sample without any modality is for the caller to refuse; it gets a
    finite vector that means nothing.

    Attributes:
        width: features of ``Fused.pooled``.
        modalities: what it brings together, in the order of `plait.core.modality`.
        pooled_only: it reads pooled vectors and no tokens, so that frozen encoders need to run but
            once, and their pooled features are enough.
        keeps: the modalities whose tokens are in ``Fused.parts``.
    """

    width: int
    modalities: tuple[str, ...]
    pooled_only: bool = False

    @property
    def keeps(self) -> tuple[str, ...]:
        """The modalities whose tokens are in ``Fused.parts``: all, unless an idea says otherwise."""
        return () if self.pooled_only else self.modalities

    @abstractmethod
    def forward(self, parts: Parts, present: Present) -> Fused:
        """Fuses encoded modalities.

        Args:
            parts: by modality, as encoders return them. A modality that is left out is absent from
                every sample.
            present: by modality, (B,) False where the sample lacks it.

        Raises:
            ModelError: a modality that this fusion was not built for, or none at all.
        """

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """JSON arguments that rebuild it, with ``kind``."""
