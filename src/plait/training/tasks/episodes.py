"""Interleaved episodes: an example after some others with their pictures (few-shot learning).

Flamingo is trained on interleaved pages and prompted with examples (Alayrac et al. 2022, section
2.4 and appendix A.2). Here the pages are made of the user's own samples.

Legend: n samples, B rows of a batch, K examples before a row, U distinct pictures of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from plait.core.batch import ModalityInput
from plait.core.random import uniform
from plait.data.base.sample import Sample
from plait.models.base.encoding import ROWS
from plait.models.bridged.model import LABELS
from plait.models.bridged.sequences import Writer
from plait.training.batches.rows import Rows
from plait.training.tasks.wording import Wording


class Shots:
    """Which examples stand before each row: none to ``most``, of other pictures.

    A function of seed, epoch and row alone, as everything that is drawn.

    Args:
        pictures: (n,) equal where samples show the same picture.
        most: the largest number of examples.
        seed: of the draw.
    """

    def __init__(self, pictures: Int[np.ndarray, " n"], most: int, seed: int) -> None:
        self.pictures, self.most, self.seed = pictures, most, seed

    def __call__(self, rows: Rows) -> list[list[int]]:
        """Of each row the positions of its examples, first to last."""
        return [
            self.of(int(place), int(text), rows.epoch)
            for place, text in zip(rows.sample, rows.text, strict=True)
        ]

    def of(self, place: int, text: int, epoch: int) -> list[int]:
        """Of one row."""
        drawn = uniform(1 + 4 * self.most, self.seed, "shots", epoch, place, text)
        count = int(drawn[0] * (self.most + 1))
        found: list[int] = []
        for one in (drawn[1:] * len(self.pictures)).astype(int).tolist():
            taken = {self.pictures[other] for other in (*found, place)}
            if len(found) < count and self.pictures[one] not in taken:
                found.append(one)
        return found


def episode(
    writer: Writer,
    wording: Wording,
    shots: Sequence[tuple[Sample, str]],
    query: tuple[Sample, str],
) -> tuple[list[int], list[int], int]:
    """(ids, labels, where the query's target begins) of a row and the examples before it.

    The end of a text follows each target, as Flamingo's end of chunk. The targets of examples are
    learned too: all that follows a picture is.
    """
    ids: list[int] = [] if writer.start is None else [writer.start]
    labels = [-100] * len(ids)
    begins = 0
    for sample, text in (*shots, query):
        prompt, target = wording.of(sample, text)
        before, after = writer.ids(prompt), [*writer.ids(target), writer.end]
        ids += before
        begins = len(ids)
        ids += after
        labels += [-100] * len(before) + after
    return ids, labels, begins


class EpisodeTexts:
    """Texts of rows with their examples.

    Args:
        samples: n.
        texts: of all samples, m in all.
        wording: of the task; its prompt shows the picture.
        writer: of the model.
        shots: which examples.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        texts: Sequence[str],
        wording: Wording,
        writer: Writer,
        shots: Shots,
    ) -> None:
        self.samples, self.texts = samples, texts
        self.wording, self.writer, self.shots = wording, writer, shots

    def __call__(self, rows: Rows) -> ModalityInput:
        """``ids`` and ``labels`` (B, N), and their mask.

        Raises:
            DataError: a row with its examples is longer than the model's context.
        """
        found = []
        for place, text, shown in zip(
            rows.sample.tolist(), rows.text.tolist(), self.shots(rows), strict=True
        ):
            sample = self.samples[place]
            query = (sample, self.texts[text])
            before = [(self.samples[one], self.samples[one].texts[0]) for one in shown]
            ids, labels, _ = episode(self.writer, self.wording, before, query)
            self.writer.check_length(len(ids), self.wording.prompt, sample.where)
            found.append((ids, labels))
        padded = self.writer.padded([ids for ids, _ in found], [labels for _, labels in found])
        return ModalityInput.of(mask=padded.mask, ids=padded.ids, **{LABELS: padded.labels})


class EpisodePictures:
    """Pictures of rows and of their examples, each once a batch.

    Args:
        load: (positions of samples) to uint8 (U, 3, H, W).
        pictures: (n,) equal where samples show the same picture.
        shots: which examples.
        augment: (pixels, positions, epoch) to pixels; None for none.
    """

    def __init__(
        self,
        load: Callable[[Sequence[int]], Any],
        pictures: Int[np.ndarray, " n"],
        shots: Shots,
        augment: Callable[[torch.Tensor, Sequence[int], int], torch.Tensor] | None = None,
    ) -> None:
        self.load, self.pictures, self.shots, self.augment = load, pictures, shots, augment

    def __call__(self, rows: Rows) -> ModalityInput:
        """``pixels`` (U, 3, H, W) and ``rows`` (B, K + 1): examples, then the row's own; -1 after."""
        shown = [
            [*before, place]
            for before, place in zip(self.shots(rows), rows.sample.tolist(), strict=True)
        ]
        places = np.full((len(shown), max(map(len, shown))), -1, np.int64)
        number: dict[int, int] = {}
        first: list[int] = []
        for row, samples in enumerate(shown):
            for column, sample in enumerate(samples):
                picture = int(self.pictures[sample])
                if picture not in number:
                    number[picture] = len(first)
                    first.append(sample)
                places[row, column] = number[picture]
        pixels = torch.as_tensor(self.load(first))
        if self.augment is not None:
            pixels = self.augment(pixels, first, rows.epoch)
        present = torch.ones(len(shown), dtype=torch.bool)
        return ModalityInput({"pixels": pixels, ROWS: torch.from_numpy(places)}, present)
