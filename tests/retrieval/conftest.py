"""A small untrained model and a folder of plain pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plait.core.media import BytesRef, FileRef
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.encoders.registry import build_encoder
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.projection import build_projection


def make_model(seed: int = 0) -> AlignmentModel:
    torch.manual_seed(seed)
    image = build_encoder("scratch/cnn", modality="image", size=32, widths=(8, 16))
    text = build_encoder("scratch/transformer", modality="text", width=24, layers=1, heads=2)
    return AlignmentModel(
        {
            "image": Tower(image, build_projection("linear", image.width, 12)),
            "text": Tower(text, build_projection("linear", text.width, 12)),
        }
    ).eval()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def model() -> AlignmentModel:
    return make_model()


@pytest.fixture(scope="session")
def other_model() -> AlignmentModel:
    return make_model(1)


def noise(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    small = random.integers(256, size=(4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((50, 40), Image.Resampling.NEAREST)


@pytest.fixture
def dataset(tmp_path: Path) -> PairDataset:
    """Eight pictures in files with two texts, two in memory without texts."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    samples = []
    for number in range(8):
        path = folder / f"{number}.png"
        noise(number).save(path)
        samples.append(
            Sample(
                id=f"p{number}",
                where=f"row {number}",
                image=FileRef(path),
                texts=(f"picture {number}", f"第{number}张图片"),
                languages=("en", "zh"),
                meta={"year": 2000 + number},
                split="test" if number % 2 else "train",
            )
        )
    for number in (8, 9):
        buffer = io.BytesIO()
        noise(number).save(buffer, "PNG")
        ref = BytesRef(buffer.getvalue(), f"shard.tar!{number}.png")
        samples.append(Sample(id=f"p{number}", where=f"member {number}", image=ref, split="train"))
    return PairDataset(samples, "test")
