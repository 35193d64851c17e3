"""The installed command, and a folder of small photographs-like pictures with five captions each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

PLAIT = Path(sys.executable).with_name("plait")

COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 200),
    "yellow": (230, 200, 40),
    "purple": (130, 50, 160),
}
SHAPES = ("circle", "square", "triangle", "bar")


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def plait() -> Callable[..., Outcome]:
    """Runs the installed command as a user would."""

    def run(*arguments: object, code: int | None = 0, cwd: Path | None = None) -> Outcome:
        done = subprocess.run(
            [str(PLAIT), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=240,
            check=False,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, (done.stdout[-2000:], done.stderr[-2000:])
        return outcome

    return run


def draw(colour: str, shape: str, seed: int) -> Image.Image:
    """A noisy picture of one coloured shape."""
    random = np.random.default_rng(seed)
    noise = random.integers(150, 230, size=(60, 80, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    x, y = (int(v) for v in random.integers(10, 50, size=2))
    box = (x, y, x + 60, y + 60)
    if shape == "circle":
        pen.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, fill=COLOURS[colour])
    elif shape == "triangle":
        pen.polygon([(x, y + 60), (x + 30, y), (x + 60, y + 60)], fill=COLOURS[colour])
    else:
        pen.rectangle((x, y + 22, x + 60, y + 38), fill=COLOURS[colour])
    return picture


def captions(colour: str, shape: str, number: int) -> list[str]:
    """Five captions, with a comma and a quotation mark among them."""
    return [
        f"a {colour} {shape}",
        f"the picture, number {number}, shows a {shape} in {colour}",
        f'a so-called "{shape}", {colour}',
        f"{colour} {shape} on a pale ground",
        f"somebody painted a {shape} with {colour} paint",
    ]


@dataclass
class Photos:
    folder: Path
    texts: dict[str, list[str]]  # by file name


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """Sixty JPEGs with five captions each, without metadata."""
    folder = tmp_path_factory.mktemp("photos") / "images"
    folder.mkdir()
    texts = {}
    number = 0
    for repeat in range(3):
        for colour in COLOURS:
            for shape in SHAPES:
                name = f"photo_{number:03d}.jpg"
                draw(colour, shape, 100 * repeat + number).save(folder / name, quality=90)
                texts[name] = captions(colour, shape, number)
                number += 1
    return Photos(folder, texts)


@pytest.fixture(scope="session")
def pairs(photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs as an image folder with metadata.jsonl."""
    import shutil

    folder = tmp_path_factory.mktemp("pairs")
    shutil.copytree(photos.folder, folder / "images")
    lines = [
        json.dumps({"file_name": f"images/{name}", "text": texts})
        for name, texts in photos.texts.items()
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


QUICK = ("--set", "stages.0.epochs=2")


@pytest.fixture(scope="session")
def run(
    plait: Callable[..., Outcome], pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of the recipe `scratch` on the photographs, for all that needs a trained model."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    plait("train", "scratch", "--data", pairs, "--out", folder, "--json", *QUICK)
    return folder
