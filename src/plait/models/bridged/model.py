"""A language model that sees: encoders, bridges, and one of two ways into the language model.

- ``prefix``: tokens of a picture stand among those of the words (LLaVA, Liu et al. 2023; BLIP-2, Li
  et al. 2023).
- ``gated``: words look at pictures through gated cross-attention before some of the layers
  (Flamingo, Alayrac et al. 2022). At the start the language model is exactly as it was.

Shape legend: B sequences, N positions, M pictures of a sequence, U distinct pictures of a batch, Q
tokens of one, D features of the language model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.bridges.base import Bridge
from plait.bridges.gated import GatedCrossAttention
from plait.core.batch import Batch, Encoded, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder
from plait.language.base import Cache, LanguageModel
from plait.models.base.encoding import ROWS, BareTower, encode
from plait.models.base.summary import short_repr
from plait.models.bridged.sequences import PLACEHOLDER, Writer
from plait.objectives.linear_cross_entropy import linear_cross_entropy

Injection = Literal["prefix", "gated"]
Reads = Literal["tokens", "pooled"]
LABELS = "labels"
"""Name of the text's tensor (B, N): ids to learn, -100 elsewhere."""


@dataclass(frozen=True)
class Media:
    """Pictures as the language model takes them.

    Attributes:
        tokens: (B, M, Q, D).
        mask: (B, M, Q) False for padding, of tokens and of whole pictures.
    """

    tokens: Float[Tensor, "B M Q D"]
    mask: Bool[Tensor, "B M Q"]

    def select(self, rows: Int64[Tensor, " R"]) -> Media:
        """Those of some sequences."""
        return Media(self.tokens[rows], self.mask[rows])


class Gates(nn.Module):
    """Gated cross-attention before some layers, and the embedding of ``<image>``.

    Args:
        width: of the language model.
        media_width: of the bridge.
        count: how many layers.
        heads, head_width: see `GatedCrossAttention`.
    """

    def __init__(
        self, width: int, media_width: int, count: int, *, heads: int, head_width: int
    ) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.blocks = nn.ModuleList(
            GatedCrossAttention(width, media_width, heads=heads, head_width=head_width)
            for _ in range(count)
        )
        # The only new row of the vocabulary; the language model's own table stays as it is.
        self.place = nn.Parameter(0.02 * torch.randn(width))


class BridgedModel(nn.Module):
    """The model.

    Args:
        encoder: of pictures.
        bridge: from its tokens; gives the language model's width.
        language: a causal language model.
        injection: see above.
        picture_tokens: tokens that the encoder gives for one picture.
        reads: ``tokens`` of the encoder, or its one ``pooled`` vector, which frozen encoders keep.
        every: of ``gated``: before every so many layers, the last of them included.
        heads, head_width: of gated cross-attention.
        only_latest: of ``gated``: a word sees the latest picture before it, not all before it.
        tasks: what it was trained to write, by name: ``prompt`` and ``target`` templates.

    Raises:
        ModelError: a bridge of another width than the language model.
    """

    __repr__ = short_repr

    def __init__(
        self,
        encoder: Encoder,
        bridge: Bridge,
        language: LanguageModel,
        *,
        injection: Injection = "prefix",
        picture_tokens: int = 1,
        reads: Reads = "tokens",
        every: int = 1,
        heads: int = 8,
        head_width: int = 64,
        only_latest: bool = True,
        tasks: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__()
        if injection not in ("prefix", "gated"):
            raise ModelError(
                f"pictures reach a language model by prefix or gated, not {injection!r}"
            )
        if bridge.width != language.width:
            raise ModelError(
                f"the bridge gives {bridge.width} features and the language model has "
                f"{language.width}"
            )
        self.towers = nn.ModuleDict({IMAGE: BareTower(encoder)})
        self.bridge, self.language, self.injection = bridge, language, injection
        self.picture_tokens = 1 if reads == "pooled" else picture_tokens
        self.reads, self.every, self.only_latest = reads, every, only_latest
        self.tasks = {name: dict(task) for name, task in (tasks or {}).items()}
        layers = len(language.blocks)
        self.gated_layers = (
            [k for k in range(layers) if (layers - 1 - k) % every == 0]
            if injection == "gated"
            else []
        )
        self.gates: Gates | None = None
        if injection == "gated":
            count = len(self.gated_layers)
            self.gates = Gates(
                language.width, bridge.width, count, heads=heads, head_width=head_width
            )

    @property
    def frames(self) -> int:
        """Frames that stand for each picture, which is a clip then; 0 for pictures."""
        return int(getattr(self.bridge, "frames", 0))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it has encoders of."""
        return (IMAGE,)

    def tower(self, modality: str) -> BareTower:
        """The encoder of pictures."""
        if modality not in self.towers:
            raise ModelError(f"this model has an encoder of {IMAGE}, not of {modality!r}")
        tower = self.towers[modality]
        assert isinstance(tower, BareTower)
        return tower

    def clamp_scale(self) -> None:
        """It has no temperature."""

    @property
    def writer(self) -> Writer:
        """Between texts and ids, for this model."""
        taken = self.bridge.count(self.picture_tokens) if self.injection == "prefix" else 1
        return Writer(self.language, taken)

    def see(self, inputs: ModalityInput) -> Media:
        """Pictures through encoder and bridge.

        ``rows`` (B,) or (B, M) say which of U distinct pictures each sequence shows, -1 for none;
        without them every sequence has the picture of its row. With `frames`, T pictures one after
        another are a clip, and count as one.
        """
        encoder = self.tower(IMAGE).encoder
        tensors = dict(inputs.tensors)
        rows = tensors.pop(ROWS, None)
        if rows is None:
            tokens, mask = self._bridged(self.read(encode(encoder, inputs)))
            return Media(tokens[:, None], mask[:, None])
        tokens, mask = self._bridged(self.read(encode(encoder, ModalityInput.of(**tensors))))
        rows = rows[:, None] if rows.ndim == 1 else rows
        there = (rows >= 0) & inputs.present[:, None]
        return Media(tokens[rows.clamp(min=0)], mask[rows.clamp(min=0)] & there[..., None])

    def _bridged(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Tokens and mask of every picture or clip."""
        if not self.frames:
            found: tuple[Tensor, Tensor] = self.bridge(encoded)
            return found
        per_clip = (len(encoded.tokens) // self.frames, -1)
        clips = Encoded(
            encoded.tokens.unflatten(0, per_clip[:1] + (self.frames,)).flatten(1, 2),
            encoded.mask.reshape(per_clip),
            encoded.pooled.unflatten(0, per_clip[:1] + (self.frames,)).mean(dim=1),
        )
        of_clips: tuple[Tensor, Tensor] = self.bridge(clips, self.frames)
        return of_clips

    def read(self, encoded: Encoded) -> Encoded:
        """What the bridge reads of an encoder's output."""
        if self.reads == "tokens":
            return encoded
        return Encoded(encoded.pooled[:, None], encoded.mask.any(dim=1)[:, None], encoded.pooled)

    def embed(self, ids: Int64[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Rows of the language model's table; the placeholder has one of its own."""
        ours = ids == self.language.vocabulary
        found = self.language.embed(ids.masked_fill(ours, 0))
        if self.gates is None:  # pictures' tokens come there
            return found
        return torch.where(ours[..., None], self.gates.place.to(found.dtype), found)

    def placed(
        self, ids: Int64[Tensor, "B N"], mask: Bool[Tensor, "B N"], media: Media | None
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """Embeddings in which pictures' tokens stand at their places, and the mask.

        Raises:
            DataError: a sequence with another number of places than its pictures have tokens.
        """
        x = self.embed(ids)
        if self.injection == "gated":
            return x, mask
        ours = ids == self.language.vocabulary
        if media is None:
            if bool(ours.any()):
                raise DataError(f"a prompt has {PLACEHOLDER} and there is no picture")
            return x, mask
        there = media.mask.any(dim=2).sum(dim=1) * media.mask.shape[2]
        if not torch.equal(ours.sum(dim=1), there):
            row = int((ours.sum(dim=1) != there).nonzero()[0])
            raise DataError(
                f"sequence {row} has {int(ours[row].sum())} places for the {int(there[row])} tokens "
                f"of its pictures: write {PLACEHOLDER} once for each picture"
            )
        shown = media.mask.any(dim=2)
        tokens = media.tokens[shown].flatten(0, 1)
        x = x.masked_scatter(ours[..., None], tokens.to(x.dtype))
        mask = mask.masked_scatter(ours, media.mask[shown].flatten())
        return x, mask

    def hidden(
        self,
        ids: Int64[Tensor, "B N"],
        mask: Bool[Tensor, "B N"],
        media: Media | None,
        *,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """(hidden states, the mask that later positions go on from) of whole sequences."""
        x, mask = self.placed(ids, mask, media)
        time = (ids == self.language.vocabulary).cumsum(dim=1)
        with self.looking(media, time):
            return self.language(x, mask, cache), mask

    @contextmanager
    def looking(self, media: Media | None, time: Int64[Tensor, "B N"]) -> Iterator[None]:
        """While it is open, words look at pictures before the gated layers.

        Hooks rather than wrapped layers: the language model stays as it is, weights and names.
        """
        hooks = []
        if media is not None and self.gates is not None:
            for number, gate in zip(self.gated_layers, self.gates.blocks, strict=True):
                hook = _look(gate, media, time, self.only_latest)
                block = self.language.blocks[number]
                hooks.append(block.register_forward_pre_hook(hook))
        try:
            yield
        finally:
            for one in hooks:
                one.remove()

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """(sum of the losses of all learned positions, their number), with its graph."""
        text = batch.modalities[TEXT]
        assert text.mask is not None
        labels = text.tensors[LABELS][:, 1:]
        image = batch.modalities.get(IMAGE)
        media = None if image is None else self.see(image)
        hidden, _ = self.hidden(text.tensors["ids"], text.mask, media)
        learned = labels >= 0
        weight, bias = self.language.head()
        total = linear_cross_entropy(
            hidden[:, :-1][learned], weight, labels[learned], bias, reduction="sum"
        )
        return total, int(learned.sum())

    def first_word(self, batch: Batch) -> Float[Tensor, "B V"]:
        """Logits after the whole of each text."""
        text = batch.modalities[TEXT]
        assert text.mask is not None
        media = self.see(batch.modalities[IMAGE])
        hidden, mask = self.hidden(text.tensors["ids"], text.mask, media)
        last = mask.sum(dim=1) - 1  # padding is on the right
        return self.language.logits(hidden[torch.arange(len(last)), last])

    def spec(self) -> dict[str, Any]:
        """JSON of everything but the encoder."""
        return {
            "bridge": self.bridge.spec(),
            "language": self.language.spec(),
            "injection": self.injection,
            "picture_tokens": self.picture_tokens,
            "reads": self.reads,
            "every": self.every,
            "only_latest": self.only_latest,
            **(
                {"heads": self.gates.heads, "head_width": self.gates.head_width}
                if self.gates is not None
                else {}
            ),
            "tasks": self.tasks,
        }


def _look(gate: nn.Module, media: Media, time: Tensor, only_latest: bool) -> Any:
    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = arguments
        return (gate(x, media.tokens, media.mask, time, only_latest), *others)

    return hook


def without_pictures(batch: Batch) -> Batch:
    """The same texts, and nothing to see."""
    kept = {name: part for name, part in batch.modalities.items() if name != IMAGE}
    return replace(batch, modalities=kept)
