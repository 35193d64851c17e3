"""ViLBERT (Lu et al. 2019): a BERT for words, a BERT for regions, joined by co-attention.

Shape legend: B samples, N words, M regions, R features of a region, D of a word, E of a region's
stream, P of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.core.batch import Encoded, Fused
from plait.core.errors import ModelError
from plait.models.systems.base import Inputs, System, box_features, fused_of, prepared
from plait.models.systems.bert import EPS, Layer, Pooler, WordEmbeddings, initialise
from plait.models.systems.streams import CoAttention

WHOLE = (0.0, 0.0, 1.0, 1.0)


class Vilbert(System):
    """Two streams; connection k stands before layer ``image_at[k]`` and ``text_at[k]``.

    Args:
        vocabulary: number of words.
        region_width: features of a region.
        width: of the words' stream.
        layers: of the words' stream.
        heads: of the words' attention.
        hidden: of the words' feed-forward.
        image: ``width``, ``layers``, ``heads`` and ``hidden`` of the regions' stream.
        joint: ``width`` and ``heads`` of co-attention; its width is the pooled one, too.
        text_at: layers of the words' stream before which the streams meet; the last ones, one for
            each layer of the regions' stream, when None.
        image_at: as many layers of the regions' stream; the first ones when None.
        fusion: ``mul`` or ``sum`` of the two pooled vectors.
        global_region: put a region for the whole picture, the mean of those that aren't hidden,
            before the others, as the published data has it; the stream is pooled there. False: the
            first region given is that one.
        max_length: most words.
        dropout: everywhere.

    Raises:
        ModelError: heads that don't divide a width, connections that don't fit the layers, or an
            unknown fusion.
    """

    kind = "vilbert"

    def __init__(
        self,
        *,
        vocabulary: int = 30522,
        region_width: int = 2048,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        image: Mapping[str, int] | None = None,
        joint: Mapping[str, int] | None = None,
        text_at: Sequence[int] | None = None,
        image_at: Sequence[int] | None = None,
        fusion: str = "mul",
        global_region: bool = True,
        max_length: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.image = _filled(image, "image", width=1024, layers=6, heads=8, hidden=1024)
        self.joint = _filled(joint, "joint", width=1024, heads=8)
        self.text_at, self.image_at = _places(layers, self.image["layers"], text_at, image_at)
        if fusion not in ("mul", "sum"):
            raise ModelError(f"fusion of ViLBERT must be 'mul' or 'sum', not {fusion!r}")
        self.vocabulary, self.region_width, self.max_length = vocabulary, region_width, max_length
        self.text_width, self.image_width = width, self.image["width"]
        self.width = self.joint["width"]
        self.heads, self.hidden, self.rate = heads, hidden, dropout
        self.fusion, self.global_region = fusion, global_region
        self.words = WordEmbeddings(vocabulary, width, max_length, dropout=dropout)
        self.region_projection = nn.Linear(region_width, self.image_width)
        self.box = nn.Linear(5, self.image_width)
        self.region_norm = nn.LayerNorm(self.image_width, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.text_layers = nn.ModuleList(
            Layer(width, heads, hidden, dropout=dropout) for _ in range(layers)
        )
        self.image_layers = nn.ModuleList(
            Layer(self.image_width, self.image["heads"], self.image["hidden"], dropout=dropout)
            for _ in range(self.image["layers"])
        )
        self.connections = nn.ModuleList(
            CoAttention(
                width,
                self.image_width,
                inner=self.joint["width"],
                heads=self.joint["heads"],
                text_hidden=hidden,
                image_hidden=self.image["hidden"],
                dropout=dropout,
            )
            for _ in self.text_at
        )
        self.text_pooler = Pooler(width, self.width, relu=True)
        self.image_pooler = Pooler(self.image_width, self.width, relu=True)
        initialise(self)

    def forward(
        self,
        ids: Int64[Tensor, "B N"],
        text_mask: Bool[Tensor, "B N"],
        regions: Encoded,
        *,
        masked_regions: Bool[Tensor, "B M"] | None = None,
    ) -> Fused:
        """See `System.forward`; ``parts["image"]`` has the regions given, without the whole one."""
        inputs = prepared(self, ids, text_mask, regions, masked_regions)
        features, boxes, keep = inputs.features, inputs.boxes, regions.mask
        if self.global_region:
            features, boxes, keep = _with_whole(inputs, masked_regions)
        words = self.words(inputs.ids)
        found = self.region_projection(features) + self.box(box_features(boxes, 5))
        found = self.dropout(self.region_norm(found))
        words, found = self._encoded(words, text_mask, found, keep)
        pooled_text, pooled_image = self.text_pooler(words), self._pooled_image(found)
        pooled = pooled_text * pooled_image if self.fusion == "mul" else pooled_text + pooled_image
        if self.global_region:
            found = found[:, 1:]
        return fused_of(pooled, words, found, inputs)

    def _pooled_image(self, found: Float[Tensor, "B M E"]) -> Float[Tensor, "B P"]:
        if found.shape[1] == 0:  # no region in the whole batch
            found = found.new_zeros(found.shape[0], 1, found.shape[2])
        out: Tensor = self.image_pooler(found)
        return out

    def _encoded(
        self, words: Tensor, text_keep: Tensor, found: Tensor, image_keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Runs each stream up to its next connection, then the connection; at last the rest."""
        text_done = image_done = 0
        for connect, text_next, image_next in zip(self.connections, self.text_at, self.image_at):
            for layer in self.text_layers[text_done:text_next]:
                words = layer(words, text_keep)
            for layer in self.image_layers[image_done:image_next]:
                found = layer(found, image_keep)
            words, found = connect(words, text_keep, found, image_keep)
            text_done, image_done = text_next, image_next
        for layer in self.text_layers[text_done:]:
            words = layer(words, text_keep)
        for layer in self.image_layers[image_done:]:
            found = layer(found, image_keep)
        return words, found

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
            "width": self.text_width,
            "layers": len(self.text_layers),
            "heads": self.heads,
            "hidden": self.hidden,
            "image": self.image,
            "joint": self.joint,
            "text_at": list(self.text_at),
            "image_at": list(self.image_at),
            "fusion": self.fusion,
            "global_region": self.global_region,
            "max_length": self.max_length,
            "dropout": self.rate,
        }


def _with_whole(
    inputs: Inputs, masked: Bool[Tensor, "B M"] | None
) -> tuple[Float[Tensor, "B L R"], Float[Tensor, "B L 4"], Bool[Tensor, "B L"]]:
    """Features, boxes and mask with the whole picture as region 0."""
    seen = inputs.region_mask if masked is None else inputs.region_mask & ~masked
    total = inputs.features.sum(dim=1, keepdim=True)
    mean = total / seen.sum(dim=1).clamp(min=1)[:, None, None]
    present = inputs.region_mask.any(dim=1, keepdim=True)
    box = inputs.boxes.new_tensor(WHOLE) * present[..., None]
    return (
        torch.cat([mean, inputs.features], dim=1),
        torch.cat([box, inputs.boxes], dim=1),
        torch.cat([present, inputs.region_mask], dim=1),
    )


def _filled(given: Mapping[str, int] | None, name: str, **defaults: int) -> dict[str, int]:
    """The sizes given, and the published ones for the rest."""
    for key in given or {}:
        if key not in defaults:
            raise ModelError(f"{name} of ViLBERT has no {key!r} (it has: {', '.join(defaults)})")
    return {**defaults, **(given or {})}


def _places(
    layers: int,
    image_layers: int,
    text_at: Sequence[int] | None,
    image_at: Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the streams meet, checked."""
    count = min(layers, image_layers)
    if image_at is None:
        image_at = range(count if text_at is None else len(text_at))
    if text_at is None:
        text_at = range(layers - len(image_at), layers)
    if len(text_at) != len(image_at):
        raise ModelError(
            f"text_at names {len(text_at)} layers and image_at {len(image_at)}: a connection joins"
            " one of each"
        )
    for name, places, most in (("text_at", text_at, layers), ("image_at", image_at, image_layers)):
        if list(places) != sorted(set(places)) or any(not 0 <= p < most for p in places):
            raise ModelError(
                f"{name} must be rising numbers from 0 to {most - 1}, not {list(places)}"
            )
    return tuple(text_at), tuple(image_at)
