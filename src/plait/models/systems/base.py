"""What every vision-language system is: words and regions in, one `Fused` out.

Shape legend: B samples, N words, M regions, R features of a region, D features of a token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.core.batch import Encoded, Fused
from plait.core.errors import ModelError
from plait.core.modality import IMAGE, TEXT


class System(nn.Module, ABC):
    """One published way of reading words and regions together.

    The laws that the shared sweep of tests holds all of them to: padding changes nothing, the order
    of samples changes nothing, and what masked words and regions hold changes nothing, NaN
    included. Outputs at masked positions are zero. A sample may lack its picture (a row of
    ``regions.mask`` without True) or its text.

    Attributes:
        vocabulary: number of words.
        max_length: most words of a sample.
        width: features of ``Fused.pooled``.
        text_width: features of a word in ``parts["text"].tokens``.
        image_width: features of a region in ``parts["image"].tokens``.
        region_width: features of a region that it takes.
    """

    kind: str
    vocabulary: int
    max_length: int
    width: int
    text_width: int
    image_width: int
    region_width: int

    @abstractmethod
    def forward(
        self,
        ids: Int64[Tensor, "B N"],
        text_mask: Bool[Tensor, "B N"],
        regions: Encoded,
        *,
        masked_regions: Bool[Tensor, "B M"] | None = None,
    ) -> Fused:
        """Reads words and regions together.

        Args:
            ids: of words; the first stands for the sample, as BERT's [CLS] does.
            text_mask: True for real words.
            regions: ``tokens`` (B, M, R), ``mask``, and ``boxes`` as shares of width and height;
                None means that every region is the whole picture.
            masked_regions: regions to hide, for masked region modelling.

        Raises:
            ModelError: regions of another width, or more words than there are positions.
        """

    @property
    @abstractmethod
    def word_table(self) -> Tensor:
        """(vocabulary, text_width) word embeddings, to which masked word heads tie their output."""

    def answer_vector(self, fused: Fused) -> Float[Tensor, "B W"]:
        """What the system's answer head reads: the pooled vector, unless it says otherwise."""
        return fused.pooled

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """JSON arguments that rebuild it, with ``kind``."""


@dataclass(frozen=True)
class Inputs:
    """Words and regions with harmless values wherever they are masked."""

    ids: Int64[Tensor, "B N"]
    text_mask: Bool[Tensor, "B N"]
    features: Float[Tensor, "B M R"]
    boxes: Float[Tensor, "B M 4"]
    region_mask: Bool[Tensor, "B M"]


def prepared(
    system: System,
    ids: Int64[Tensor, "B N"],
    text_mask: Bool[Tensor, "B N"],
    regions: Encoded,
    masked_regions: Bool[Tensor, "B M"] | None = None,
) -> Inputs:
    """Checks widths, fills in boxes, and zeroes padding and masked regions.

    Raises:
        ModelError: regions of another width, or more words than there are positions.
    """
    found = regions.tokens.shape[-1]
    if found != system.region_width:
        raise ModelError(
            f"{system.kind} was built for regions of {system.region_width} features and got"
            f" {found}: give features of that width, or build it with region_width={found}"
        )
    if ids.shape[1] > system.max_length:
        raise ModelError(
            f"{system.kind} has positions for {system.max_length} words and got {ids.shape[1]}:"
            " shorten the texts, or build it with a larger max_length"
        )
    absent = ~regions.mask[..., None]
    hidden = absent if masked_regions is None else absent | masked_regions[..., None]
    if regions.boxes is None:
        whole = regions.tokens.new_tensor([0.0, 0.0, 1.0, 1.0])
        boxes = whole.expand(*regions.mask.shape, 4)
    else:
        boxes = regions.boxes.to(regions.tokens.dtype)
    # masked_fill, not a product: zero times NaN is NaN, in the gradient too
    return Inputs(
        ids.masked_fill(~text_mask, 0),
        text_mask,
        regions.tokens.masked_fill(hidden, 0.0),
        boxes.masked_fill(absent, 0.0),
        regions.mask,
    )


def box_features(boxes: Float[Tensor, "B M 4"], count: int) -> Float[Tensor, "B M C"]:
    """Where a region lies, as the systems describe it.

    Args:
        boxes: x1, y1, x2, y2 as shares of width and height.
        count: 4 for the corners (LXMERT), 5 with the area (ViLBERT), 7 with width, height and area
            (UNITER).
    """
    size = boxes[..., 2:] - boxes[..., :2]
    area = size.prod(dim=-1, keepdim=True)
    parts = {4: (boxes,), 5: (boxes, area), 7: (boxes, size, area)}
    return torch.cat(parts[count], dim=-1)


def fused_of(
    pooled: Float[Tensor, "B P"],
    words: Float[Tensor, "B N D"],
    found: Float[Tensor, "B M E"],
    inputs: Inputs,
) -> Fused:
    """The result, with zeros at masked positions; each part is pooled by its first token."""

    def part(tokens: Tensor, mask: Tensor, boxes: Tensor | None) -> Encoded:
        tokens = tokens.masked_fill(~mask[..., None], 0.0)
        first = (
            tokens[:, 0] if tokens.shape[1] else tokens.new_zeros(tokens.shape[0], tokens.shape[2])
        )
        return Encoded(tokens, mask, first, boxes)

    parts: Mapping[str, Encoded] = {
        TEXT: part(words, inputs.text_mask, None),
        IMAGE: part(found, inputs.region_mask, inputs.boxes),
    }
    return Fused(pooled, parts)
