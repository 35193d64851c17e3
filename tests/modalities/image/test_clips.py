"""Frames of clips: which of them stand for the whole, and what a still or damaged file gives."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from plait.core.errors import DataError
from plait.core.media import BytesRef
from plait.modalities.image.clips import frames_of
from plait.modalities.image.decode import decode_image

SHADES = (0, 50, 100, 150, 200, 250)


def clip(kind: str, shades: tuple[int, ...] = SHADES) -> BytesRef:
    pictures = [Image.new("RGB", (8, 6), (shade, shade, shade)) for shade in shades]
    target = io.BytesIO()
    more = {"lossless": True} if kind == "WEBP" else {}
    pictures[0].save(target, kind, save_all=True, append_images=pictures[1:], duration=40, **more)
    return BytesRef(target.getvalue(), f"clip.{kind.lower()}")


def shades_of(clips: list[BytesRef], count: int) -> list[int]:
    read = [decode_image(ref.read(), name=ref.name) for ref in frames_of(clips, count)]
    assert all((frame == frame[0, 0]).all() for frame in read)
    return [int(frame[0, 0, 0]) for frame in read]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [150]), (2, [50, 200]), (3, [50, 150, 250]), (6, list(SHADES))],
)
def test_the_middles_of_equal_parts(kind: str, count: int, expected: list[int]) -> None:
    assert shades_of([clip(kind)], count) == expected


def test_more_frames_than_there_are_repeat() -> None:
    assert shades_of([clip("GIF", (0, 200))], 4) == [0, 0, 200, 200]


def test_a_still_picture_is_a_clip_of_equal_frames() -> None:
    assert shades_of([clip("PNG", (100,))], 3) == [100] * 3


def test_without_frames_pictures_stay_as_they_are() -> None:
    still = clip("PNG", (100,))
    assert frames_of([still], 0) == [still]


def test_transparency_is_put_on_white() -> None:
    target = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 4), np.uint8), "RGBA").save(target, "PNG")
    assert shades_of([BytesRef(target.getvalue(), "empty.png")], 2) == [255, 255]


def test_a_damaged_clip_is_told_by_its_frame() -> None:
    whole = clip("GIF")
    cut = BytesRef(whole.data[: len(whole.data) // 2], "cut.gif")
    with pytest.raises(DataError, match=r"cut\.gif"):
        for ref in frames_of([cut], 6):
            decode_image(ref.read(), name=ref.name)
