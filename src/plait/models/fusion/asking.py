"""From pictures and questions to answers, batch by batch, without gradients.

Shape legend: B questions of a batch, A answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.core.modality import IMAGE, TEXT
from plait.modalities.image.fast_decode import load_pixels
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.regions import RegionPreprocess, load_regions
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.base.embedding import answering
from plait.models.base.encoding import ROWS
from plait.models.fusion.model import FusionModel

Change = Callable[[Batch], Batch]

QUESTIONS_AT_ONCE = 256


def answer_logits(
    model: FusionModel,
    pictures: Sequence[MediaRef],
    questions: Sequence[str],
    *,
    head: str = "answer",
    batch_size: int = QUESTIONS_AT_ONCE,
    change: Change | None = None,
    on_error: Callable[[int, DataError], None] | None = None,
) -> Iterator[Tensor]:
    """(B, A) float32 logits of a head, batch after batch.

    Args:
        model: with that head.
        pictures: one for each question; a picture that several questions share is read and
            encoded once a batch.
        questions: as many.
        head: ``answer``, or ``match`` for whether a text belongs to its picture.
        batch_size: questions at once.
        change: made to every batch, e.g. to hide a modality.
        on_error: is told the question and the error of a picture that cannot be used; None raises.

    Raises:
        DataError: a picture that cannot be used.
    """
    assert len(pictures) == len(questions)
    for start in range(0, len(pictures), batch_size):
        part = slice(start, start + batch_size)
        batch = batch_of(model, pictures[part], questions[part], first=start, on_error=on_error)
        if change is not None:
            batch = change(batch)
        with answering(model) as device:
            fused = model.fuse(batch.to(device))
            logits = model.head(head)(model.vector(fused)).float().cpu()
        yield logits


def match_scores(
    model: FusionModel, pictures: Sequence[MediaRef], texts: Sequence[str], **options: Any
) -> np.ndarray:
    """(n,) float32 log odds that each text belongs to its picture.

    Args:
        model: trained with the objective ``match`` or ``wra``.
        pictures: n.
        texts: n.
        options: as for `answer_logits`.

    Raises:
        ModelError: the model was not trained to match.
        DataError: a picture that cannot be used.
    """
    found = [np.zeros(0, np.float32)]
    for logits in answer_logits(model, pictures, texts, head="match", **options):
        found.append((logits[:, 1] - logits[:, 0]).numpy())
    return np.concatenate(found)


def batch_of(
    model: FusionModel,
    pictures: Sequence[MediaRef],
    questions: Sequence[str],
    *,
    first: int = 0,
    on_error: Callable[[int, DataError], None] | None = None,
) -> Batch:
    """One batch of questions about pictures; ``first`` is the number of the first for errors."""
    show, read = (model.tower(name).encoder.preprocess for name in (IMAGE, TEXT))
    assert isinstance(read, TextPreprocess)
    number: dict[MediaRef, int] = {}
    rows = np.array([number.setdefault(ref, len(number)) for ref in pictures], np.int64)

    def failed(place: int, error: DataError) -> None:
        if on_error is None:
            raise error
        for row in np.flatnonzero(rows == place).tolist():
            on_error(first + row, error)

    if isinstance(show, RegionPreprocess):
        tensors = dict(load_regions(list(number), show, on_error=failed).tensors)
    else:
        assert isinstance(show, ImagePreprocess)
        tensors = {"pixels": torch.as_tensor(load_pixels(list(number), show, on_error=failed))}
    ids, mask = read(list(questions))
    count = len(questions)
    image = ModalityInput(
        {**tensors, ROWS: torch.from_numpy(rows)}, torch.ones(count, dtype=torch.bool)
    )
    text = ModalityInput.of(mask=torch.from_numpy(mask), ids=torch.from_numpy(ids))
    return Batch([""] * count, torch.arange(count), {IMAGE: image, TEXT: text})


def without(modality: str) -> Change:
    """A change that takes one modality away from every row."""

    def change(batch: Batch) -> Batch:
        part = batch.modalities[modality]
        gone = replace(part, present=torch.zeros_like(part.present))
        return replace(batch, modalities={**batch.modalities, modality: gone})

    return change


def shuffled_pictures(seed: int) -> Change:
    """A change that shows every question a picture of another one in its batch, where there is one."""
    generator = torch.Generator().manual_seed(seed)

    def change(batch: Batch) -> Batch:
        part = batch.modalities[IMAGE]
        rows = part.tensors[ROWS]
        distinct = int(rows.max()) + 1
        # A cyclic shift after a random relabelling: no picture stays with its own questions.
        order = torch.randperm(distinct, generator=generator)
        other = torch.empty_like(order)
        other[order] = order.roll(1)
        moved = replace(part, tensors={**part.tensors, ROWS: other[rows]})
        return replace(batch, modalities={**batch.modalities, IMAGE: moved})

    return change
