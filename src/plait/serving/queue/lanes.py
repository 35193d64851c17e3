"""What is batched: one lane a modality of a model, from raw inputs to rows.

A lane prepares inputs one by one in threads (decoding, tokenising), so that a bad one fails alone,
and runs prepared ones together in the inference thread.

Shape legend: B inputs, E features of the shared space, N tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from plait.core.errors import DataError, PlaitError
from plait.core.modality import IMAGE, TEXT
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.serving.base.settings import Limits
from plait.serving.queue.decoders import Decoders

HERE = "here"
_LENGTHS = ("ids", "mask")  # tensors whose second axis is as long as the longest text


@dataclass(frozen=True, slots=True)
class Prepared:
    """An input that is ready for a forward pass.

    Attributes:
        value: for the lane's `run`.
        length: its cost when it shares a pass: tokens, or pixels.
    """

    value: Any
    length: int


@dataclass(frozen=True, slots=True)
class Tensors:
    """A row of tensors that another server prepared: taken as it is."""

    row: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a picture: the raw input of a lane that answers.

    Attributes:
        picture: encoded bytes, or uint8 (H, W, 3).
        question: in words.
        answers: how many are wanted.
    """

    picture: Any
    question: str
    answers: int


@runtime_checkable
class Embedder(Protocol):
    """A model that embeds: a `plait.runtime.Bundle`, or a run behind the same methods."""

    @property
    def modalities(self) -> Sequence[str]:
        """Those that it embeds."""

    @property
    def dim(self) -> int:
        """Features of the shared space."""

    @property
    def scale(self) -> float:
        """What multiplies a cosine to give a logit."""

    @property
    def image_preprocess(self) -> ImagePreprocess:
        """Of a model that embeds pictures."""

    @property
    def text_preprocess(self) -> TextPreprocess:
        """Of a model that embeds texts."""

    def prepare_images(self, images: Sequence[Any]) -> Mapping[str, np.ndarray]:
        """Tensors of pictures: uint8 arrays (H, W, 3)."""

    def prepare_texts(self, texts: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Tensors of texts, padded to the longest."""

    def run(self, modality: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """(B, E) float32 rows of unit length. May be called from several threads."""


@runtime_checkable
class Lane(Protocol):
    """Inputs of one kind, on their way through one model."""

    @property
    def name(self) -> str:
        """For metrics and logs."""

    @property
    def group(self) -> str:
        """Lanes of one group take turns; those of different groups run at the same time."""

    @property
    def budget(self) -> int:
        """The most that (inputs) x (longest) of one pass may come to."""

    @property
    def rows(self) -> int:
        """The most inputs of one pass."""

    @property
    def most(self) -> float:
        """The most that the lengths of one request's inputs may come to."""

    @property
    def chunk(self) -> int:
        """How many inputs of a request one thread prepares at a time."""

    @property
    def instant(self) -> int:
        """The most `cost` of all inputs of a request that are prepared where they arrived."""

    def cost(self, raw: Any) -> int:
        """What preparing an input takes, in characters of a text; 0 where `chunk` is bound enough."""

    def is_slow(self, raw: Any) -> bool:
        """Whether preparing an input may take so long that others must not wait for it."""

    def prepare(self, raws: Sequence[Any]) -> list[Prepared | Exception]:
        """Each input ready to run, or what is wrong with it."""

    def run(self, values: Sequence[Any]) -> Sequence[Any]:
        """A result, or an exception, for each prepared value."""

    def probe(self) -> Any:
        """A raw input that must succeed: the readiness check."""


class TextLane:
    """Texts of one model. Raw inputs are strings, or `Tensors`.

    Args:
        name: for metrics and logs.
        model: that embeds them.
        limits: budget of a pass.
        group: see `Lane.group`.
    """

    chunk = 64
    instant = 512  # some 30 microseconds a text: another thread would take longer to wake

    def __init__(self, name: str, model: Embedder, limits: Limits, group: str = HERE) -> None:
        self.name, self.model, self.group = name, model, group
        self.budget, self.rows = limits.batch_tokens, limits.batch_rows
        self.most = float(limits.tokens)
        preprocess = model.text_preprocess
        self._longest, self._vocabulary = preprocess.max_length, preprocess.vocabulary
        # Texts that are always padded to the full length are trained so: they must not be cut.
        self._cuts = preprocess.padding == "longest"
        self._pads = pads_of(preprocess)

    def cost(self, raw: Any) -> int:
        """See `Lane.cost`: what is beyond the model's length is hardly read."""
        return 0 if isinstance(raw, Tensors) else len(raw)

    def is_slow(self, raw: Any) -> bool:
        """See `Lane.is_slow`."""
        return False

    def prepare(self, raws: Sequence[Any]) -> list[Prepared | Exception]:
        """See `Lane.prepare`."""
        texts = [raw for raw in raws if not isinstance(raw, Tensors)]
        tensors = self.model.prepare_texts(texts) if texts else {}
        rows = iter(_rows(tensors, len(texts)))
        found: list[Prepared | Exception] = []
        for raw in raws:
            row = self._checked(raw.row) if isinstance(raw, Tensors) else next(rows)
            length = int(row["mask"].sum()) if self._cuts else len(row["mask"])
            cut = {name: part[:length] if name in _LENGTHS else part for name, part in row.items()}
            found.append(Prepared(cut, length))
        return found

    def _checked(self, row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ids and mask from elsewhere. Raises DataError when the tower could not take them."""
        ids, mask = row.get("ids"), row.get("mask")
        if (
            ids is None
            or mask is None
            or len(row) != 2
            or (ids.dtype, mask.dtype) != (np.int64, np.bool_)
            or ids.ndim != 1
            or ids.shape != mask.shape
            or not 1 <= len(ids) <= self._longest
        ):
            raise DataError(
                "the text tower takes ids (int64) and mask (bool), both (inputs, positions), of 1 "
                f"to {self._longest} positions"
            )
        if ids.min() < 0 or ids.max() >= self._vocabulary:
            raise DataError(f"ids of the text tower are from 0 to {self._vocabulary - 1}")
        if not mask[: max(1, int(mask.sum()))].all():
            raise DataError("mask of the text tower is true at the beginning of each row")
        return dict(row)

    def run(self, values: Sequence[Any]) -> list[Any]:
        """See `Lane.run`: (E,) rows."""
        return _checked(self.model.run(TEXT, joined(values, self._pads)))

    def probe(self) -> Any:
        """See `Lane.probe`."""
        return "a"


class ImageLane:
    """Pictures of one model. Raw inputs are encoded bytes, or `Tensors`.

    Args:
        name: for metrics and logs.
        model: that embeds them.
        limits: budget of a pass.
        decoders: of their files.
        group: see `Lane.group`.
    """

    chunk, instant = 1, 0
    most = math.inf  # their number is limited, and each has the same length

    def __init__(
        self, name: str, model: Embedder, limits: Limits, decoders: Decoders, group: str = HERE
    ) -> None:
        self.name, self.model, self.group = name, model, group
        self.decoders, self._shape = decoders, (3, *model.image_preprocess.size_2d)
        self.budget, self.rows = limits.batch_pixels, limits.batch_rows

    def cost(self, raw: Any) -> int:
        """See `Lane.cost`."""
        return 0

    def is_slow(self, raw: Any) -> bool:
        """See `Lane.is_slow`."""
        return not isinstance(raw, Tensors) and not self.decoders.is_quick(raw)

    def prepare(self, raws: Sequence[Any]) -> list[Prepared | Exception]:
        """See `Lane.prepare`."""
        found: list[Prepared | Exception] = []
        for raw in raws:
            try:
                found.append(self._prepare(raw))
            except DataError as error:
                found.append(error)
        return found

    def _prepare(self, raw: Any) -> Prepared:
        if isinstance(raw, Tensors):
            row, (_, height, width) = dict(raw.row), self._shape
            given = row.get("pixels")
            if (
                given is None
                or len(row) != 1
                or given.dtype != np.uint8
                or given.shape != self._shape
            ):
                raise DataError(
                    f"the image tower takes pixels (uint8), (inputs, 3, {height}, {width})"
                )
        elif self.is_slow(raw):
            row = {"pixels": self.decoders.pixels(raw, self.model.image_preprocess)}
        else:
            array = self.decoders.picture(raw, levels=self.model.image_preprocess.levels)
            (row,) = _rows(self.model.prepare_images([array]), 1)
        pixels = row["pixels"]
        return Prepared(row, int(pixels.shape[-1] * pixels.shape[-2]))

    def run(self, values: Sequence[Any]) -> list[Any]:
        """See `Lane.run`: (E,) rows."""
        names = values[0]
        pixels = {name: np.stack([value[name] for value in values]) for name in names}
        return _checked(self.model.run(IMAGE, pixels))

    def probe(self) -> Any:
        """See `Lane.probe`."""
        return np.full((8, 8, 3), 127, np.uint8)


def _checked(rows: Float[np.ndarray, "B E"]) -> list[Any]:
    """The rows; an exception in place of one that is not finite."""
    good = np.isfinite(rows).all(axis=1)
    return [
        row if fine else PlaitError("the model gives no finite embedding of this input")
        for row, fine in zip(rows, good, strict=True)
    ]


def _rows(tensors: Mapping[str, np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    return [{name: array[i] for name, array in tensors.items()} for i in range(count)]


def pads_of(preprocess: TextPreprocess) -> dict[str, Any]:
    """What stands at padded positions of ``ids`` and ``mask``."""
    return {"ids": preprocess.pad_id, "mask": False}


def joined(
    rows: Sequence[Mapping[str, np.ndarray]], pads: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """A batch of prepared rows; ids and masks are padded to the longest."""
    batch = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        if name in _LENGTHS:
            width = max(map(len, parts))
            block = np.full((len(parts), width), pads[name], parts[0].dtype)
            for line, part in zip(block, parts, strict=True):
                line[: len(part)] = part
            batch[name] = block
        else:
            batch[name] = np.stack(parts)
    return batch


def embedding_lanes(
    name: str,
    model: Embedder,
    limits: Limits,
    decoders: Decoders,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Lane]:
    """The lanes of a model by modality; ``groups`` of those that are not run here."""
    groups = groups or {}
    lanes: dict[str, Lane] = {}
    if TEXT in model.modalities:
        group = groups.get(TEXT, HERE)
        lanes[TEXT] = TextLane(f"{name}/{TEXT}", model, limits, group)
    if IMAGE in model.modalities:
        group = groups.get(IMAGE, HERE)
        lanes[IMAGE] = ImageLane(f"{name}/{IMAGE}", model, limits, decoders, group)
    return lanes
