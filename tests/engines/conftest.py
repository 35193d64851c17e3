"""Small towers, and a cache folder of their own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.engines.towers import save_pictures

from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.encoders.base.base import Encoder
from plait.encoders.registry import build_encoder
from plait.engines import runner
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.projection import build_projection


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    runner._open.clear()  # engines that other tests left open
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
