"""LXMERT (Tan and Bansal 2019): layers for words, layers for regions, then layers across.

Shape legend: B samples, N words, M regions, R features of a region, D features of a token.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.core.batch import Encoded, Fused
from plait.models.systems.base import Inputs, System, box_features, fused_of, prepared
from plait.models.systems.bert import EPS, Layer, Pooler, WordEmbeddings, initialise
from plait.models.systems.streams import SharedCrossLayer


class RegionEmbeddings(nn.Module):
    """(LN(W f) + LN(W box)) / 2, with the four corners for the box."""

    def __init__(self, region_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Linear(region_width, width)
        self.projection_norm = nn.LayerNorm(width, eps=EPS)
        self.box = nn.Linear(4, width)
        self.box_norm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Inputs) -> Float[Tensor, "B M D"]:
        """Embeds regions."""
        features = self.projection_norm(self.projection(inputs.features))
        places = self.box_norm(self.box(box_features(inputs.boxes, 4)))
        out: Tensor = self.dropout((features + places) / 2)
        return out


class Lxmert(System):
    """Two streams of their own length, then cross-modality layers.

    Args:
        vocabulary: number of words.
        region_width: features of a region.
        width: of both streams.
        text_layers: over words alone.
        image_layers: over regions alone.
        cross_layers: over both.
        heads: of attention.
        hidden: of the feed-forward.
        max_length: most words.
        dropout: everywhere.

    Raises:
        ModelError: a width that the heads don't divide.
    """

    kind = "lxmert"

    def __init__(
        self,
        *,
        vocabulary: int = 30522,
        region_width: int = 2048,
        width: int = 768,
        text_layers: int = 9,
        image_layers: int = 5,
        cross_layers: int = 5,
        heads: int = 12,
        hidden: int = 3072,
        max_length: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.vocabulary, self.region_width, self.max_length = vocabulary, region_width, max_length
        self.width = self.text_width = self.image_width = width
        self.heads, self.hidden, self.rate = heads, hidden, dropout
        # As published, the embeddings of position 0 and of type 0 stay as they are.
        self.words = WordEmbeddings(
            vocabulary, width, max_length, fixed_first=True, dropout=dropout
        )
        self.regions = RegionEmbeddings(region_width, width, dropout)
        self.text_layers = nn.ModuleList(
            Layer(width, heads, hidden, dropout=dropout) for _ in range(text_layers)
        )
        self.image_layers = nn.ModuleList(
            Layer(width, heads, hidden, dropout=dropout) for _ in range(image_layers)
        )
        self.cross_layers = nn.ModuleList(
            SharedCrossLayer(width, heads, hidden, dropout=dropout) for _ in range(cross_layers)
        )
        self.pooler = Pooler(width)
        initialise(self)

    def forward(
        self,
        ids: Int64[Tensor, "B N"],
        text_mask: Bool[Tensor, "B N"],
        regions: Encoded,
        *,
        masked_regions: Bool[Tensor, "B M"] | None = None,
    ) -> Fused:
        """See `System.forward`."""
        inputs = prepared(self, ids, text_mask, regions, masked_regions)
        words, found = self.words(inputs.ids), self.regions(inputs)
        for layer in self.text_layers:
            words = layer(words, text_mask)
        for layer in self.image_layers:
            found = layer(found, regions.mask)
        for layer in self.cross_layers:
            words, found = layer(words, text_mask, found, regions.mask)
        return fused_of(self.pooler(words), words, found, inputs)

    @property
    def word_table(self) -> Tensor:
        """See `System.word_table`."""
        return self.words.words.weight

    def spec(self) -> dict[str, Any]:
        """See `System.spec`."""
        return {
            "kind": self.kind,
            "vocabulary": self.vocabulary,
            "region_width": self.region_width,
            "width": self.width,
            "text_layers": len(self.text_layers),
            "image_layers": len(self.image_layers),
            "cross_layers": len(self.cross_layers),
            "heads": self.heads,
            "hidden": self.hidden,
            "max_length": self.max_length,
            "dropout": self.rate,
        }
