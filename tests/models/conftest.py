"""A small model of both modalities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plait.encoders.registry import build_encoder
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.projection import build_projection

torch.set_num_threads(1)


def small_model(**options: float | None) -> AlignmentModel:
    torch.manual_seed(0)
    image = build_encoder("scratch/cnn", modality="image", size=16, widths=[8, 12])
    text = build_encoder("scratch/transformer", modality="text", width=12, layers=1, heads=2)
    towers = {
        "image": Tower(image, build_projection("linear", image.width, 6)),
        "text": Tower(text, build_projection("mlp", text.width, 6)),
    }
    return AlignmentModel(towers, **options).eval()  # type: ignore[arg-type]


@pytest.fixture
def model() -> AlignmentModel:
    return small_model()


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = [(20, 30), (16, 16), (41, 17), (9, 12), (64, 48)]
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
