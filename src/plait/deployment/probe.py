"""Made-up inputs for comparisons of graphs: pictures, and texts of any length.

Shape legend: B samples, N tokens, h, w the encoder's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.runtime.manifest import Port

WORDS: Final = (
    "a dog runs over the grass in front of two people with a red umbrella while smiling faces "
    "with heart shaped eyes look at 3 green apples, an old blue car and the moon above the sea"
)


class Probe:
    """Deterministic inputs of a model.

    Args:
        image: how it sees, if it does.
        text: how it reads, if it does.
    """

    def __init__(self, image: ImagePreprocess | None, text: TextPreprocess | None) -> None:
        self.image, self.text = image, text
        self.longest = 0 if text is None else text.max_length
        self._ids = np.zeros(0, np.int64) if text is None else _long_text(text)

    def tensors(
        self, inputs: Mapping[str, Port], rows: int, length: int | None
    ) -> dict[str, np.ndarray]:
        """Inputs of a tower: ``rows`` different ones, texts padded to ``length``."""
        found: dict[str, np.ndarray] = {}
        if "pixels" in inputs:
            found["pixels"] = self._pixels(rows)
        if "ids" in inputs:
            found["ids"], found["mask"] = self._texts(rows, length or self.longest)
        return found

    def alone(self, tensors: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
        """One row of `tensors` as it comes when it is asked for alone: without padding."""
        found = {name: array[row : row + 1] for name, array in tensors.items()}
        if "mask" in found and self.text is not None and self.text.padding == "longest":
            real = int(found["mask"].sum())
            found |= {name: found[name][:, :real] for name in ("ids", "mask")}
        return found

    def _pixels(self, rows: int) -> np.ndarray:
        """(B, 3, h, w): blotches of many sizes, noise, black and white."""
        assert self.image is not None
        height, width = self.image.size_2d
        pictures = []
        for row in range(rows):
            random = np.random.default_rng(row)
            cell = (1, 4, 16, max(height, width))[row % 4]
            shape = (-(-height // cell), -(-width // cell))
            blotches = random.integers(0, 256, (3, *shape), dtype=np.uint8)
            if row == 5:
                blotches[:] = 0
            elif row == 6:
                blotches[:] = 255
            picture = np.repeat(np.repeat(blotches, cell, axis=1), cell, axis=2)
            pictures.append(picture[:, :height, :width])
        return np.stack(pictures)

    def _texts(self, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, N) ids and mask; the first text is the longest, the others end anywhere."""
        assert self.text is not None
        ids = np.full((rows, length), self.text.pad_id, np.int64)
        mask = np.zeros((rows, length), np.bool_)
        for row in range(rows):
            real = length - (row * 5) % length
            inner = np.roll(self._ids[1:-1], -3 * row)
            text = np.concatenate([self._ids[:1], inner[: max(0, real - 2)], self._ids[-1:]])
            ids[row, :real] = text[-1:] if real == 1 else text
            mask[row, :real] = True
        return ids, mask


def _long_text(text: TextPreprocess) -> np.ndarray:
    """Ids of a text of at least ``max_length`` tokens, special ones included."""
    words = WORDS
    while True:
        ids = text.tokenizer.encode(words).ids
        if len(ids) >= text.max_length + 2:
            return np.array(ids, np.int64)
        words = f"{words} {words}"
