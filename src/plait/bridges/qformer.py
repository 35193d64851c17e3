"""BLIP-2's Q-Former: learned queries that learn, with texts, what of a picture words speak of.

Source: Li et al. 2023, section 3 and figure 2.
Shape legend: B samples, Q queries, N words, L = Q + N, M tokens of the encoder, C their features, D
the Q-Former's features, W the language model's.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.bridges.base import Bridge, only
from plait.bridges.qformer_heads import QFormerHeads
from plait.bridges.qformer_layers import EPS, QFormerLayer
from plait.core.batch import Encoded
from plait.core.errors import ModelError

TEXT_PARTS = {"words", "positions", "text_heads", "text_feed_forward"}


class QFormerBridge(Bridge):
    """Queries that look at the encoder's tokens, then a linear layer to the language model.

    With a ``vocabulary`` it reads words as well, for the first stage of BLIP-2's training;
    `without_text` drops that branch for the second.

    Args:
        token_width: features of the encoder's tokens.
        width: features of the language model.
        queries: how many tokens it gives.
        inner: its own features, BERT-base's by default.
        layers: of BERT.
        heads: of each attention.
        hidden: features inside each feed-forward; four times ``inner`` when None.
        every: the picture is looked at in layer 0 and every so many layers after it.
        dropout: BERT's.
        vocabulary: number of words; 0 for none. Word 0 is padding, whose embedding is not trained.
        max_length: most words of a text.
        embeddings: features of the embeddings that the first stage compares; 0 for no
            `text_heads`.

    Attributes:
        text_heads: heads of the first stage; None without ``embeddings``.

    Raises:
        ModelError: a size below 1, heads that do not divide ``inner``, or ``embeddings`` without a
            vocabulary.
    """

    kind = "qformer"

    def __init__(
        self,
        token_width: int,
        width: int,
        *,
        queries: int = 32,
        inner: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int | None = None,
        every: int = 2,
        dropout: float = 0.1,
        vocabulary: int = 0,
        max_length: int = 512,
        embeddings: int = 0,
    ) -> None:
        super().__init__()
        if min(token_width, width, queries, inner, layers, heads, every, max_length) < 1:
            raise ModelError(
                f"bridge {self.kind!r}: widths, queries, layers, heads, every and max_length must"
                " be at least 1"
            )
        self.token_width, self.width, self.inner, self.heads = token_width, width, inner, heads
        self.hidden, self.every, self.dropout_rate = hidden or 4 * inner, every, dropout
        self.vocabulary, self.max_length = vocabulary, max_length
        self.queries = nn.Parameter(0.02 * torch.randn(queries, inner))
        self.words = nn.Embedding(vocabulary, inner, padding_idx=0) if vocabulary else None
        self.positions = nn.Embedding(max_length, inner) if vocabulary else None
        self.norm = nn.LayerNorm(inner, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            QFormerLayer(
                inner,
                token_width,
                heads,
                self.hidden,
                dropout,
                looks=number % every == 0,
                reads=vocabulary > 0,
            )
            for number in range(layers)
        )
        self.project = nn.Linear(inner, width)
        if embeddings and not vocabulary:
            raise ModelError(f"bridge {self.kind!r}: embeddings of texts need a vocabulary")
        self.text_heads = QFormerHeads(inner, vocabulary, width=embeddings) if embeddings else None
        _initialise(self)

    def forward(self, encoded: Encoded) -> tuple[Float[Tensor, "B Q W"], Bool[Tensor, "B Q"]]:
        """See `Bridge.forward`."""
        kept = encoded.mask.any(dim=1)[:, None].expand(-1, len(self.queries))
        return only(self.project(self.look(encoded)), kept), kept

    def count(self, tokens: int) -> int:
        """The queries, for any number."""
        return len(self.queries)

    def look(self, encoded: Encoded) -> Float[Tensor, "B Q D"]:
        """Queries alone look at pictures: for contrast, and as a bridge."""
        queries = self._queries(len(encoded.tokens))
        seen = encoded.mask.new_ones(len(queries), 1, queries.shape[1])
        return self._layers(queries, queries.shape[1], seen, encoded)

    def read(self, ids: Int64[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Words alone, each seeing all: for contrast. Zero at padding.

        Raises:
            ModelError: it has no words, or the text is longer than its positions.
        """
        return only(self._layers(self._embed(ids, mask), 0, mask[:, None], None), mask)

    def read_and_look(
        self,
        encoded: Encoded,
        ids: Int64[Tensor, "B N"],
        mask: Bool[Tensor, "B N"],
        *,
        causal: bool,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B N D"]]:
        """Queries and words together.

        Args:
            encoded: pictures.
            ids: of words.
            mask: False for padding.
            causal: False, for matching: all see all. True, for writing: queries see queries, a
                word sees the queries and the words before it.

        Returns:
            Queries, and words with zeros at padding.

        Raises:
            ModelError: it has no words, or the text is longer than its positions.
        """
        queries = self._queries(len(ids))
        count = queries.shape[1]
        states = torch.cat([queries, self._embed(ids, mask)], dim=1)
        states = self._layers(states, count, joint_mask(mask, count, causal=causal), encoded)
        return states[:, :count], only(states[:, count:], mask)

    def without_text(self) -> QFormerBridge:
        """The same without its words, for the second stage."""
        twin = QFormerBridge(**{**self._arguments(), "vocabulary": 0, "embeddings": 0})
        twin.to(self.queries)
        wanted = twin.state_dict().keys()
        twin.load_state_dict({k: v for k, v in self.state_dict().items() if k in wanted})
        return twin.train(self.training)

    def text_parameters(self) -> list[nn.Parameter]:
        """What `without_text` drops."""
        return [one for name, one in self.named_parameters() if TEXT_PARTS & {*name.split(".")}]

    def spec(self) -> dict[str, Any]:
        """See `Bridge.spec`."""
        return {"kind": self.kind, **self._arguments()}

    def _arguments(self) -> dict[str, Any]:
        return {
            "token_width": self.token_width,
            "width": self.width,
            "queries": len(self.queries),
            "inner": self.inner,
            "layers": len(self.layers),
            "heads": self.heads,
            "hidden": self.hidden,
            "every": self.every,
            "dropout": self.dropout_rate,
            "vocabulary": self.vocabulary,
            "max_length": self.max_length,
            "embeddings": 0 if self.text_heads is None else self.text_heads.width,
        }

    def _queries(self, rows: int) -> Float[Tensor, "B Q D"]:
        started: Tensor = self.dropout(self.norm(self.queries).expand(rows, -1, -1))
        return started

    def _embed(self, ids: Tensor, mask: Tensor) -> Float[Tensor, "B N D"]:
        if self.words is None or self.positions is None:
            raise ModelError(
                f"bridge {self.kind!r} has no words: build it with the vocabulary of the tokenizer"
            )
        if ids.shape[1] > self.max_length:
            raise ModelError(
                f"bridge {self.kind!r} has positions for {self.max_length} words and got"
                f" {ids.shape[1]}: shorten the texts, or build it with a larger max_length"
            )
        x = self.words(ids.masked_fill(~mask, 0)) + self.positions.weight[: ids.shape[1]]
        started: Tensor = self.dropout(self.norm(x))
        return started

    def _layers(self, x: Tensor, queries: int, seen: Tensor, encoded: Encoded | None) -> Tensor:
        media = None if encoded is None else self.real(encoded)
        media_mask = None if encoded is None else encoded.mask
        for layer in self.layers:
            x = layer(x, queries, seen, media, media_mask)
        return x


def joint_mask(mask: Bool[Tensor, "B N"], queries: int, *, causal: bool) -> Bool[Tensor, "B L L"]:
    """Who (middle) may see whom (last) among queries and words; figure 2 of the paper.

    Args:
        mask: False for words that are padding.
        queries: how many stand before the words.
        causal: queries see no words, and a word sees none after it.
    """
    rows, words = mask.shape
    length = queries + words
    real = torch.cat([mask.new_ones(rows, queries), mask], dim=1)[:, None].expand(-1, length, -1)
    if not causal:
        return real
    allowed = mask.new_ones(length, length).tril()
    allowed[:queries, :queries] = True
    return real & allowed


def _initialise(bridge: QFormerBridge) -> None:
    """BERT's start; the queries' feed-forward is a copy of the words'."""
    for part in bridge.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
    if bridge.words is None:
        return
    with torch.no_grad():
        bridge.words.weight[0].zero_()
    for layer in bridge.layers:
        assert isinstance(layer, QFormerLayer) and layer.text_feed_forward is not None
        layer.query_feed_forward.load_state_dict(layer.text_feed_forward.state_dict())
