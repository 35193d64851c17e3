"""`Gallery`: the vectors of a split side by side with the pictures and words they stand for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.core.modality import IMAGE, TEXT
from plait.data.base.equal_texts import EqualTexts, RightAnswers, text_numbers
from plait.data.base.sample import Sample
from plait.models.base.hubs import HubCorrection


@runtime_checkable
class EmbeddingsLike(Protocol):
    """What `plait.engines.features.embed_dataset` returns; n samples, m texts, D features."""

    @property
    def ids(self) -> Sequence[str]:
        """Of the n samples."""

    @property
    def groups(self) -> Int[np.ndarray, " n"]:
        """Equal where samples show the same thing."""

    @property
    def image(self) -> Float[np.ndarray, "n D"]:
        """Unit rows."""

    @property
    def text(self) -> Float[np.ndarray, "m D"]:
        """Unit rows."""

    @property
    def text_owner(self) -> Int[np.ndarray, " m"]:
        """The sample of each text."""


@dataclass(frozen=True)
class Gallery:
    """Pictures and texts that may be asked and found; samples without a picture are left out.

    Attributes:
        image: (n, D) unit rows.
        text: (m, D) unit rows.
        text_owner: (m,) the row of each text's picture.
        groups: (n,) equal where pictures show the same thing.
        ids: of the n samples.
        pictures: where the bytes of the n pictures are.
        texts: the m texts.
        languages: of the m texts, None where unknown.
        labels: class name of each picture, None where it has none.
        left_out: samples without a picture, which cannot be found.
        image_bias, text_bias: (n,), (m,) taken from the score of a picture that a text asks for,
            and of a text that a picture asks for; None for nothing (see `corrected`).
        text_words: (m,) equal where texts read the same; None: each is its own picture's alone.
    """

    image: Float[np.ndarray, "n D"]
    text: Float[np.ndarray, "m D"]
    text_owner: Int[np.ndarray, " m"]
    groups: Int[np.ndarray, " n"]
    ids: Sequence[str]
    pictures: Sequence[MediaRef]
    texts: Sequence[str]
    languages: Sequence[str | None]
    labels: Sequence[str | None]
    left_out: int = 0
    image_bias: Float[np.ndarray, " n"] | None = None
    text_bias: Float[np.ndarray, " m"] | None = None
    text_words: Int[np.ndarray, " m"] | None = None

    @cached_property
    def answers(self) -> RightAnswers:
        """Which pictures and texts belong together."""
        return RightAnswers.of(self.groups, self.text_owner, self.text_words)

    def words_of(self, row: int) -> str:
        """The first text of a picture, or its id."""
        places = np.flatnonzero(self.text_owner == row)
        return self.texts[int(places[0])] if len(places) else self.ids[row]


def gallery_of(
    embeddings: EmbeddingsLike, samples: Iterable[Sample], *, equal_texts: EqualTexts = "same"
) -> Gallery:
    """Joins vectors to samples by id; the texts of a sample keep their order.

    Args:
        embeddings: the vectors.
        samples: the samples of all of them.
        equal_texts: ``same``: texts that read the same are right for all their pictures;
            ``apart``: each for its own alone.

    Raises:
        DataError: a vector whose sample is not there, or another number of texts.
    """
    by_id = {sample.id: sample for sample in samples}
    missing = [name for name in embeddings.ids if name not in by_id]
    if missing:
        raise DataError(f"the embeddings hold {missing[0]!r}, which the data set does not")
    rows = [by_id[name] for name in embeddings.ids]
    kept = [row for row, sample in enumerate(rows) if sample.image is not None]
    place = np.full(len(rows), -1)
    place[kept] = np.arange(len(kept))
    columns = np.flatnonzero(place[embeddings.text_owner] >= 0)
    texts, languages = _texts(rows, embeddings.text_owner)
    told = [texts[column] for column in columns]
    return Gallery(
        image=embeddings.image[kept],
        text=embeddings.text[columns],
        text_owner=place[embeddings.text_owner[columns]],
        groups=embeddings.groups[kept],
        ids=[rows[row].id for row in kept],
        pictures=[image for row in kept if (image := rows[row].image) is not None],
        texts=told,
        languages=[languages[column] for column in columns],
        labels=[_label(rows[row]) for row in kept],
        left_out=len(rows) - len(kept),
        text_words=text_numbers(told) if equal_texts == "same" else None,
    )


def corrected(gallery: Gallery, hubs: HubCorrection | None) -> Gallery:
    """The same gallery, its scores less a model's correction for hubs where it has one."""
    if hubs is None:
        return gallery
    return replace(
        gallery,
        image_bias=hubs.bias(IMAGE, gallery.image, TEXT),
        text_bias=hubs.bias(TEXT, gallery.text, IMAGE),
    )


def _texts(
    rows: Sequence[Sample], owners: Int[np.ndarray, " m"]
) -> tuple[list[str], list[str | None]]:
    """Words and language of each text: the owner's texts in their order."""
    seen: dict[int, int] = defaultdict(int)
    texts, languages = [], []
    for owner in owners.tolist():
        sample, number = rows[owner], seen[owner]
        seen[owner] += 1
        if number >= len(sample.texts):
            raise DataError(f"the embeddings hold more than the {number} texts of {sample.id!r}")
        texts.append(sample.texts[number])
        languages.append(sample.languages[number] if sample.languages else None)
    return texts, languages


def _label(sample: Sample) -> str | None:
    """The class of a picture, where its source names one in plain words."""
    for name in ("label", "class", "category"):
        value = sample.labels.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return None
