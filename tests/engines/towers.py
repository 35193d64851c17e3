"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from plait.core.media import FileRef
from plait.encoders.base.base import Encoder
from plait.engines.torch_engine import TorchEngine


class CountingEngine:
    """Torch, and a record of how many rows each call had."""

    name, precision = "torch", "float32"

    def __init__(self, encoder: Encoder) -> None:
        self.inner, self.calls = TorchEngine(encoder), []

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        self.calls.append({name: array.shape for name, array in tensors.items()})
        return self.inner.run(tensors)

    @property
    def rows(self) -> int:
        return sum(next(iter(call.values()))[0] for call in self.calls)


def save_pictures(folder: Path, numbers: Sequence[int]) -> list[FileRef]:
    """Pictures of random blotches, a different one for each number."""
    folder.mkdir(exist_ok=True)
    refs = []
    for number in numbers:
        blotches = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(blotches).resize((48, 40)).save(path)
        refs.append(FileRef(path))
    return refs
