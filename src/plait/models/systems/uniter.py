"""UNITER (Chen et al. 2020): words and regions, each embedded and normed, in one BERT.

Shape legend: B samples, N words, M regions, R features of a region, D features of a token.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.core.batch import Encoded, Fused
from plait.models.systems.base import Inputs, System, box_features, fused_of, prepared
from plait.models.systems.bert import EPS, Layer, Pooler, WordEmbeddings, initialise
from plait.models.systems.streams import CoAttention


class RegionEmbeddings(nn.Module):
    """LN(LN(W f) + LN(W box) + type), with seven numbers for the box.

    A hidden region is zeroed, and a learned vector takes the place of its features.
    """

    def __init__(self, region_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Linear(region_width, width)
        self.projection_norm = nn.LayerNorm(width, eps=EPS)
        self.box = nn.Linear(7, width)
        self.box_norm = nn.LayerNorm(width, eps=EPS)
        self.mask = nn.Parameter(torch.empty(region_width))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, inputs: Inputs, kind: Float[Tensor, " D"], hidden: Bool[Tensor, "B M"] | None
    ) -> Float[Tensor, "B M D"]:
        """Embeds regions; ``kind`` is the type embedding of pictures."""
        features = inputs.features
        if hidden is not None:
            features = features + hidden[..., None] * self.mask
        x = self.projection_norm(self.projection(features))
        x = x + self.box_norm(self.box(box_features(inputs.boxes, 7))) + kind
        out: Tensor = self.dropout(self.norm(x))
        return out


class _Uniter(System):
    """What both variants share: embeddings, pooler, arguments."""

    def __init__(
        self,
        vocabulary: int,
        region_width: int,
        width: int,
        heads: int,
        hidden: int,
        max_length: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.vocabulary, self.region_width, self.max_length = vocabulary, region_width, max_length
        self.width = self.text_width = self.image_width = width
        self.heads, self.hidden, self.rate = heads, hidden, dropout
        self.words = WordEmbeddings(vocabulary, width, max_length, dropout=dropout)
        self.regions = RegionEmbeddings(region_width, width, dropout)
        self.pooler = Pooler(width)

    def _start(self) -> None:
        initialise(self)
        nn.init.normal_(self.regions.mask, std=0.02)

    def _embedded(
        self, inputs: Inputs, masked_regions: Bool[Tensor, "B M"] | None
    ) -> tuple[Tensor, Tensor]:
        kind = self.words.types.weight[1]
        return self.words(inputs.ids), self.regions(inputs, kind, masked_regions)

    @property
    def word_table(self) -> Tensor:
        """See `System.word_table`."""
        return self.words.words.weight

    @property
    def region_matrix(self) -> Tensor:
        """(D, R): region feature regression ties its output to the transpose."""
        return self.regions.projection.weight

    def _spec(self, layers: int) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "vocabulary": self.vocabulary,
            "region_width": self.region_width,
            "width": self.width,
            "layers": layers,
            "heads": self.heads,
            "hidden": self.hidden,
            "max_length": self.max_length,
            "dropout": self.rate,
        }


class Uniter(_Uniter):
    """One stream, the published model.

    Args:
        vocabulary: number of words.
        region_width: features of a region.
        width: of the stream.
        layers: of BERT.
        heads: of attention.
        hidden: of the feed-forward.
        max_length: most words.
        dropout: everywhere.

    Raises:
        ModelError: a width that the heads don't divide.
    """

    kind = "uniter"

    def __init__(
        self,
        *,
        vocabulary: int = 28996,
        region_width: int = 2048,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        max_length: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(vocabulary, region_width, width, heads, hidden, max_length, dropout)
        self.layers = nn.ModuleList(
            Layer(width, heads, hidden, dropout=dropout) for _ in range(layers)
        )
        self._start()

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
        x = torch.cat(self._embedded(inputs, masked_regions), dim=1)
        keep = torch.cat([text_mask, regions.mask], dim=1)
        for layer in self.layers:
            x = layer(x, keep)
        words, found = x.split([ids.shape[1], regions.mask.shape[1]], dim=1)
        return fused_of(self.pooler(words), words, found, inputs)

    def spec(self) -> dict[str, Any]:
        """See `System.spec`."""
        return self._spec(len(self.layers))


class UniterTwoStream(_Uniter):
    """Not published: UNITER's embeddings and pooler over two streams that co-attend.

    Each of ``layers`` steps is a BERT layer in either stream, then a `CoAttention`. Tutorials often
    draw UNITER like this; the published model is `Uniter`. A step has 4 times the weights of one of
    its layers.
    """

    kind = "uniter_two_stream"

    def __init__(
        self,
        *,
        vocabulary: int = 28996,
        region_width: int = 2048,
        width: int = 768,
        layers: int = 3,
        heads: int = 12,
        hidden: int = 3072,
        max_length: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(vocabulary, region_width, width, heads, hidden, max_length, dropout)

        def stream() -> nn.ModuleList:
            return nn.ModuleList(
                Layer(width, heads, hidden, dropout=dropout) for _ in range(layers)
            )

        self.text_layers, self.image_layers = stream(), stream()
        self.connections = nn.ModuleList(
            CoAttention(
                width,
                width,
                inner=width,
                heads=heads,
                text_hidden=hidden,
                image_hidden=hidden,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self._start()

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
        words, found = self._embedded(inputs, masked_regions)
        for text, image, connect in zip(self.text_layers, self.image_layers, self.connections):
            words, found = text(words, text_mask), image(found, regions.mask)
            words, found = connect(words, text_mask, found, regions.mask)
        return fused_of(self.pooler(words), words, found, inputs)

    def spec(self) -> dict[str, Any]:
        """See `System.spec`."""
        return self._spec(len(self.text_layers))
