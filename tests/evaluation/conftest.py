"""A gallery of random vectors with small pictures, for everything that reads one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
from PIL import Image

from plait.core.media import BytesRef
from plait.data.base.sample import Sample
from plait.evaluation.evaluate.gallery import Gallery, gallery_of

COLOURS = ("red", "green", "blue", "black")
CHINESE = {"red": "红色", "green": "绿色", "blue": "蓝色", "black": "黑色"}


@dataclass
class Vectors:
    """What `embed_dataset` returns, without a model."""

    ids: list[str]
    groups: np.ndarray
    image: np.ndarray
    text: np.ndarray
    text_owner: np.ndarray


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def picture(colour: str, name: str) -> BytesRef:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return BytesRef(buffer.getvalue(), name)


@pytest.fixture
def samples() -> list[Sample]:
    """Twelve pictures, an English and a Chinese text each; the last is a text without picture."""
    made = []
    for number in range(12):
        colour = COLOURS[number % 4]
        made.append(
            Sample(
                id=f"s{number}",
                where=f"row {number}",
                image=picture(colour, f"{number}.png") if number < 11 else None,
                texts=(f"a {colour} field, number {number}", f"{CHINESE[colour]} {number}"),
                languages=("en", "zh"),
                labels={"label": colour},
            )
        )
    return made


@pytest.fixture
def vectors(samples: list[Sample]) -> Vectors:
    image = unit(12, 6, 0)
    owner = np.repeat(np.arange(12), 2)
    text = image[owner] + 0.9 * unit(24, 6, 1)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return Vectors([s.id for s in samples], np.arange(12), image, text, owner)


@pytest.fixture
def gallery(samples: list[Sample], vectors: Vectors) -> Gallery:
    return gallery_of(vectors, samples)


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Without the tests' own checks of shapes, which would refuse before plait does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
