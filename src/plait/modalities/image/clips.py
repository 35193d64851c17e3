"""Frames of short clips: animated GIF, WebP, PNG and TIFF files, by Pillow.

Each frame is a picture of its own, spread evenly over the clip; a still picture is a clip whose
frames are all alike.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.modalities.image.decode import Deep, deep_of, open_image, to_rgb


@dataclass(frozen=True, slots=True)
class FrameRef:
    """One of ``count`` frames that stand for a clip.

    Attributes:
        clip: the file.
        place: of this frame, from 0.
        count: of frames; the clip is cut into as many equal parts, and the middle of each is taken.
    """

    clip: MediaRef
    place: int
    count: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.clip.name}, frame {self.place + 1} of {self.count}"

    @property
    def path(self) -> Path | None:
        """None: a frame is no file of its own."""
        return None

    @property
    def size(self) -> int:
        """Bytes of the whole clip."""
        return self.clip.size

    def read(self) -> bytes:
        """The frame as a PNG file.

        Raises:
            DataError: the clip is no picture, or is damaged before this frame.
        """
        data = self.clip.read()
        with open_image(data, name=self.clip.name) as image:
            frame = (2 * self.place + 1) * _frames(image) // (2 * self.count)
            return _png(image, deep_of(image, data), frame, self.name)


def frames_of(clips: Sequence[MediaRef], count: int) -> list[MediaRef]:
    """``count`` frames of each clip, one clip after another; 0: the pictures as they are."""
    if not count:
        return list(clips)
    return [FrameRef(clip, place, count) for clip in clips for place in range(count)]


def _frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _png(image: Image.Image, deep: Deep, frame: int, name: str) -> bytes:
    try:
        image.seek(frame)
        image.load()
    except DataError as error:
        raise DataError(error.problem, path=name) from error
    except (EOFError, OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"frame {frame + 1} cannot be read: {error}; replace the file", path=name
        ) from error
    target = io.BytesIO()
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(to_rgb(image, deep=deep))
    elif image.mode not in ("RGB", "L"):
        # With its transparency, which decoding then puts on white as everywhere.
        image = image.convert("RGBA")
    image.save(target, "PNG")
    return target.getvalue()
