"""A folder of tiny pictures, and a recipe that trains on it in a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from plait.training.recipe.recipe import load_recipe
from plait.training.recipe.schema import Recipe

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 30),
    "blue": (30, 30, 220),
    "grey": (90, 90, 90),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 pictures of one colour in some brightness, each with two captions."""
    folder = tmp_path_factory.mktemp("colours")
    lines = []
    for number in range(64):
        name = list(COLOURS)[number % 4]
        shade = tuple(max(0, value - number // 4 * 4) for value in COLOURS[name])
        Image.new("RGB", (20, 20), shade).save(folder / f"{number}.png")
        texts = [f"{name} number {number}", f"a picture of {name}, {number}"]
        lines.append(json.dumps({"file_name": f"{number}.png", "text": texts}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


TINY: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "dim": 8,
        "towers": {
            "image": {
                "encoder": "scratch/cnn",
                "options": {"size": 16, "widths": [4, 8]},
                "projection": {"kind": "linear", "dropout": 0.1},
            },
            "text": {
                "encoder": "scratch/transformer",
                "options": {"width": 8, "layers": 1, "heads": 2, "max_length": 40},
            },
        },
    },
    "stages": [
        {
            "name": "all",
            "train": {"image.encoder": "full", "text.encoder": "full"},
            "epochs": 2,
            "batch_size": 16,
            "precision": "float32",
            "features": {"engine": "torch", "precision": "float32"},
        }
    ],
    "evaluation": {"test": None},
}


@pytest.fixture
def tiny(tmp_path: Path, colours: Path) -> Callable[..., Recipe]:
    """The tiny recipe on the pictures above, with overrides."""

    def load(*overrides: str) -> Recipe:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
        return load_recipe(path, overrides, data=str(colours))

    return load
