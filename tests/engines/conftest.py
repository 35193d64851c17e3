"""Small towers, and a cache folder of their own for every test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plait.data.dataset import PairDataset
from plait.data.sample import FileRef, Sample
from plait.encoders.base import Encoder
from plait.encoders.registry import build_encoder
from plait.engines.torch_engine import TorchEngine
from plait.models.alignment import AlignmentModel, Tower
from plait.models.projection import build_projection


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


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def image_encoder() -> Encoder:
    torch.manual_seed(0)
    return build_encoder("scratch/cnn", modality="image", size=32, widths=(8, 16))


@pytest.fixture
def text_encoder() -> Encoder:
    torch.manual_seed(0)
    return build_encoder("scratch/transformer", modality="text", width=24, layers=2, heads=2)


@pytest.fixture
def model(image_encoder: Encoder, text_encoder: Encoder) -> AlignmentModel:
    torch.manual_seed(1)
    towers = {
        encoder.modality: Tower(encoder, build_projection("linear", encoder.width, 12))
        for encoder in (image_encoder, text_encoder)
    }
    return AlignmentModel(towers)


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


@pytest.fixture
def dataset(tmp_path: Path) -> PairDataset:
    refs = save_pictures(tmp_path / "pictures", range(6))
    texts = [("red", "a red thing"), ("blue",), (), ("red",), ("green and long " * 3,), ("x", "y")]
    samples = [
        Sample(
            id=f"s{i}", where=f"row {i + 1}", image=ref, texts=words, group="g" if i < 2 else None
        )
        for i, (ref, words) in enumerate(zip(refs, texts))
    ]
    samples.append(Sample(id="words", where="row 7", texts=("only words",)))
    return PairDataset(samples, "pairs table")
