"""A folder of made-up photographs with captions, as heavy to decode as real ones.

The spectrum falls with frequency as that of natural pictures does (amplitude about 1/f, Field
1987), colours go together, and some soft-edged shapes lie on top, so that a 500 x 375 JPEG takes
about as many bytes as one of Flickr8k (137 KB on average).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 500, 375
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple")
SHAPES = ("ball", "box", "bar")
PLACES = ("on the grass", "near the sea", "in a dark room", "under a cloudy sky", "by the road")


def texture(random: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8: noise with amplitude 1/f, the same to a large part in all colours."""
    vertical = np.fft.fftfreq(HEIGHT)[:, None] * HEIGHT
    horizontal = np.fft.rfftfreq(WIDTH)[None] * WIDTH
    frequency = np.maximum(np.hypot(vertical, horizontal), 1.0)
    planes = []
    for _ in range(4):  # brightness, and three colours
        spectrum = np.fft.rfft2(random.normal(size=(HEIGHT, WIDTH))) / frequency
        plane = np.fft.irfft2(spectrum, s=(HEIGHT, WIDTH))
        planes.append(plane / plane.std())
    colours = np.stack(planes[1:], axis=-1) * 15 + planes[0][..., None] * 55 + 120
    grain = random.normal(size=(HEIGHT, WIDTH, 3)) * 6
    return np.clip(colours + grain, 0, 255).astype(np.uint8)


def photograph(number: int) -> tuple[Image.Image, str]:
    """A picture and its caption, the same for the same number."""
    random = np.random.default_rng(number)
    picture = Image.fromarray(texture(random))
    parts = []
    for _ in range(int(random.integers(1, 4))):
        colour = COLOURS[random.integers(len(COLOURS))]
        shape = SHAPES[random.integers(len(SHAPES))]
        left, top = (int(random.integers(0, edge - 80)) for edge in (WIDTH, HEIGHT))
        width = int(random.integers(60, 200))
        height = 20 if shape == "bar" else width
        mask = Image.new("L", picture.size)
        draw = ImageDraw.Draw(mask)
        box = (left, top, left + width, top + height)
        (draw.ellipse if shape == "ball" else draw.rectangle)(box, fill=190)
        picture.paste(
            Image.new("RGB", picture.size, colour), mask=mask.filter(ImageFilter.BoxBlur(2))
        )
        parts.append(f"a {colour} {shape}")
    place = PLACES[random.integers(len(PLACES))]
    return picture, f"{' and '.join(parts)} {place} seen from camera {number}"


def make_photographs(folder: Path, count: int) -> list[Path]:
    """Writes ``count`` JPEGs, ``metadata.csv`` for plait and ``pairs.tsv`` for open_clip."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, captions = [], []
    for number in range(count):
        picture, caption = photograph(number)
        path = folder / f"{number:05d}.jpg"
        picture.save(path, quality=90)
        paths.append(path)
        captions.append(caption)
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", "split"])
        rows.writerows((p.name, text, "train") for p, text in zip(paths, captions))
    with (folder / "pairs.tsv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(["filepath", "title"])
        rows.writerows(zip(map(str, paths), captions))
    return paths
