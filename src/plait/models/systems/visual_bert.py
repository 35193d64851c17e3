"""VisualBERT (Li et al. 2019): regions join the words as more tokens of one BERT.

Shape legend: B samples, N words, M regions, A aligned words, R features of a region, D of a token.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.core.batch import Encoded, Fused
from plait.core.errors import ModelError
from plait.core.modality import TEXT
from plait.models.systems.base import System, fused_of, prepared
from plait.models.systems.bert import EPS, Layer, Pooler, WordEmbeddings, initialise


class VisualBert(System):
    """One stream over words, then regions.

    A region is its projection + a visual position (one for all) + a visual type; words and regions
    go through one LayerNorm. Where regions lie is not told: features that know it (patches) do.

    Args:
        vocabulary: number of words.
        region_width: features of a region.
        width: of the stream.
        layers: of BERT.
        heads: of attention.
        hidden: of the feed-forward.
        max_length: most words.
        dropout: everywhere.
        visual_type: row of the visual type table: 1 as in transformers, 0 in the original code.
        pad_id: the word whose embedding is not trained.
        eps: of LayerNorm.

    Raises:
        ModelError: a width that the heads don't divide, or a visual type but 0 and 1.
    """

    kind = "visual_bert"

    def __init__(
        self,
        *,
        vocabulary: int = 30522,
        region_width: int = 2048,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        max_length: int = 512,
        dropout: float = 0.1,
        visual_type: int = 1,
        pad_id: int = 0,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        if visual_type not in (0, 1):
            raise ModelError(f"visual_type must be 0 or 1, not {visual_type}")
        self.vocabulary, self.region_width, self.max_length = vocabulary, region_width, max_length
        self.width = self.text_width = self.image_width = width
        self.heads, self.hidden, self.rate, self.eps = heads, hidden, dropout, eps
        self.visual_type, self.pad_id = visual_type, pad_id
        self.words = WordEmbeddings(
            vocabulary, width, max_length, pad_id=pad_id, dropout=dropout, eps=eps
        )
        self.region_projection = nn.Linear(region_width, width)
        # Published tables have a row a position, but every region takes position 0.
        self.visual_position = nn.Parameter(torch.empty(width))
        self.visual_types = nn.Embedding(2, width)
        self.layers = nn.ModuleList(
            Layer(width, heads, hidden, dropout=dropout, eps=eps) for _ in range(layers)
        )
        self.pooler = Pooler(width)
        initialise(self)
        with torch.no_grad():  # visual tables start as copies of the text's
            self.visual_position.copy_(self.words.positions.weight[0])
            self.visual_types.weight.copy_(self.words.types.weight)

    def forward(
        self,
        ids: Int64[Tensor, "B N"],
        text_mask: Bool[Tensor, "B N"],
        regions: Encoded,
        *,
        masked_regions: Bool[Tensor, "B M"] | None = None,
        image_text_alignment: Int64[Tensor, "B M A"] | None = None,
    ) -> Fused:
        """See `System.forward`.

        Args:
            ids: of words.
            text_mask: True for real words.
            regions: features and mask; boxes are not read.
            masked_regions: regions whose features are zeroed.
            image_text_alignment: positions of the words that name each region, filled up with -1;
                the region gets the mean of their position embeddings.
        """
        inputs = prepared(self, ids, text_mask, regions, masked_regions)
        visual = self.region_projection(inputs.features) + self.visual_position
        visual = visual + self.visual_types.weight[self.visual_type]
        if image_text_alignment is not None:
            visual = visual + self._aligned(image_text_alignment)
        x = torch.cat([self.words.sums(inputs.ids), visual], dim=1)
        x = self.words.dropout(self.words.norm(x))
        keep = torch.cat([text_mask, regions.mask], dim=1)
        for layer in self.layers:
            x = layer(x, keep)
        words, found = x.split([ids.shape[1], regions.mask.shape[1]], dim=1)
        return fused_of(self.pooler(words), words, found, inputs)

    def _aligned(self, alignment: Int64[Tensor, "B M A"]) -> Float[Tensor, "B M D"]:
        given = alignment >= 0
        places = self.words.positions(alignment.clamp(min=0)) * given[..., None]
        out: Tensor = places.sum(dim=2) / given.sum(dim=2).clamp(min=1)[..., None]
        return out

    @property
    def word_table(self) -> Tensor:
        """See `System.word_table`."""
        return self.words.words.weight

    def answer_vector(self, fused: Fused) -> Float[Tensor, "B W"]:
        """The last word before [SEP]: position length - 2 of texts that end in [SEP]."""
        text = fused.parts[TEXT]
        last = (text.mask.sum(dim=1) - 2).clamp(min=0)
        return text.tokens[torch.arange(last.shape[0], device=last.device), last]

    def spec(self) -> dict[str, Any]:
        """See `System.spec`."""
        return {
            "kind": self.kind,
            "vocabulary": self.vocabulary,
            "region_width": self.region_width,
            "width": self.width,
            "layers": len(self.layers),
            "heads": self.heads,
            "hidden": self.hidden,
            "max_length": self.max_length,
            "dropout": self.rate,
            "visual_type": self.visual_type,
            "pad_id": self.pad_id,
            "eps": self.eps,
        }
