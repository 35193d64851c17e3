"""Pictures of more than 8 bits a value: which of their values become black and white.

Scanners and cameras of 10 to 14 bits store their values in files of 16. Shown by the book, their white
is a sixteenth of the way up. What says how many bits are used is believed (the chunk ``sBIT`` of a PNG,
``BitsPerSample`` of a TIFF); where nothing does, a user states the values or a share of them.

Pictures of 8 bits are left as they are: whoever made them has chosen.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFile

from plait.core.errors import DataError, RecipeError, did_you_mean

NARROW: Final = 0.26
"""Of a range: pictures of more than 8 bits that use no more, as 14 bits in 16 do, are dark or flat."""

_FULL: Final = 65535.0
_SURE_BITS: Final = 12  # of so few, by the book, the brightest would be at a sixteenth
_BITS_PER_SAMPLE: Final = 258
_SWAPPED: Final = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_KEYS: Final = ("window", "percentiles")


@dataclass(frozen=True)
class Levels:
    """What becomes black and white in pictures of more than 8 bits a value; one of the two.

    Attributes:
        window: two values as the files state them (of DICOM: after its rescaling); what is below
            the first is black, above the second white.
        percentiles: the same of each picture's own values, 0 to 100: ``(1, 99)`` makes its darkest
            hundredth black and its brightest white.
    """

    window: Sequence[float | int] | None = None
    percentiles: Sequence[float | int] | None = None

    def __post_init__(self) -> None:
        for name in _KEYS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _pair(name, value))
        if (self.window is None) == (self.percentiles is None):
            raise RecipeError(
                "levels of pictures need one of window: [BLACK, WHITE] (values) and "
                "percentiles: [1, 99]"
            )

    def to_json(self) -> dict[str, list[float]]:
        """Plain data from which `from_json` makes the same object."""
        pairs = ((name, getattr(self, name)) for name in _KEYS)
        return {name: list(pair) for name, pair in pairs if pair is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Levels:
        """The inverse of `to_json`. Raises RecipeError for an unknown key or an unfit value."""
        if not isinstance(value, Mapping):
            raise RecipeError(f"levels of pictures are {value!r}; give window or percentiles")
        for key in value:
            if key not in _KEYS:
                raise RecipeError(f"levels of pictures have no {key!r}{did_you_mean(key, _KEYS)}")
        return cls(**value)

    def range_of(self, values: Iterable[np.ndarray], *, whole: bool) -> tuple[float, float]:
        """The values that become black and white in one picture.

        Args:
            values: of the picture, part by part.
            whole: they are whole numbers from 0 to 65535.

        Raises:
            DataError: a picture of floating-point numbers, none of which is finite.
        """
        if self.window is not None:
            low, high = self.window
            return float(low), float(high)
        assert self.percentiles is not None
        if whole:
            counts = sum(np.bincount(part.ravel(), minlength=1 << 16) for part in values)
            return _percentiles(np.asarray(counts), self.percentiles)
        parts = [part[np.isfinite(part)] for part in values]
        every = np.concatenate(parts) if parts else np.empty(0)
        if not every.size:
            raise DataError("the picture has no finite value")
        low, high = np.percentile(every, self.percentiles, method="inverted_cdf")
        return float(low), float(high)


def _pair(name: str, value: Any) -> tuple[float, float]:
    fit = (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(isinstance(one, int | float) and math.isfinite(one) for one in value)
        and value[0] < value[1]
    )
    if not fit or (name == "percentiles" and not 0 <= value[0] < value[1] <= 100):
        kind = "numbers from 0 to 100" if name == "percentiles" else "values"
        raise RecipeError(f"{name} of pictures is {value!r}; give two {kind}, the lower first")
    return float(value[0]), float(value[1])


def _percentiles(counts: np.ndarray, shares: Sequence[float | int]) -> tuple[float, float]:
    """The values below which these shares of all lie, from how often each value occurs."""
    below = np.cumsum(counts)
    ranks = np.maximum(np.ceil(np.asarray(shares) / 100 * below[-1]), 1)
    low, high = np.searchsorted(below, ranks)
    return float(low), float(high)


def is_deep_colour(image: Image.Image) -> bool:
    """Whether an opened picture, not loaded yet, is in colour with 16 bits, of which Pillow takes 8."""
    return _raw_mode(image) is not None


def _raw_mode(image: Image.Image) -> str | None:
    """How a colour picture of 16 bits is stored, which Pillow cuts to 8; None for all others."""
    if image.mode not in ("RGB", "RGBA") or not isinstance(image, ImageFile.ImageFile):
        return None
    if not image.tile:
        return None
    arguments = image.tile[0][3]
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    if isinstance(raw, str) and raw[-3:] in _SWAPPED and raw[:-4] == image.mode:
        return raw
    return None


def swap_bytes(image: Image.Image) -> None:
    """Makes a picture of `is_deep_colour` give the lower bytes of its values when it is loaded."""
    raw = _raw_mode(image)
    assert raw is not None
    assert isinstance(image, ImageFile.ImageFile)
    swapped = raw[:-3] + _SWAPPED[raw[-3:]]
    tiles = []
    for codec, extents, offset, arguments in image.tile:
        one = (swapped, *arguments[1:]) if isinstance(arguments, tuple) else swapped
        tiles.append(type(image.tile[0])(codec, extents, offset, one))
    image.tile = tiles


def stated_bits(image: Image.Image, data: bytes) -> int:
    """How many bits of its 16 an opened picture says that it uses; 0 where it says nothing."""
    if image.format == "PNG":
        return _significant(data)
    tags = getattr(image, "tag_v2", None)
    bits = tags.get(_BITS_PER_SAMPLE, (0,)) if tags is not None else (0,)
    most = max(bits) if isinstance(bits, tuple) else bits
    return most if 8 < most < 16 else 0


def _significant(data: bytes) -> int:
    """The most bits that the chunk ``sBIT`` of a PNG of 16 bits names."""
    place = 8
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">L4s", data, place)
        if kind == b"IDAT":
            break
        if kind == b"sBIT" and data[24] == 16:
            most = max(data[place + 8 : place + 8 + min(size, 4)], default=0)
            return most if 0 < most < 16 else 0
        place += 12 + size
    return 0


def full_scale(image: Image.Image, bits: int, values: Iterable[np.ndarray]) -> float:
    """The value of white in a picture of 16 bits, of which ``bits`` are said to be used.

    By the book (PNG, third edition, 11.3.2.4) the used bits of a PNG are its upper ones. Scanners
    that state them leave their values as they are, in the lower ones. Then no value reaches above
    these, and values use bits that a file by the book leaves empty; of few bits the first is enough.
    """
    if not 0 < bits < 16:
        return _FULL
    if image.format != "PNG":
        return float((1 << bits) - 1)
    top, empty = 0, True
    unused = (1 << (16 - bits)) - 1
    for part in values:
        top = max(top, int(part.max(initial=0)))
        empty = empty and not (part & unused).any()
    lower = top < 1 << bits and (bits <= _SURE_BITS or not empty)
    return float((1 << bits) - 1) if lower else _FULL


def narrow_share(found: tuple[float, float, float, float]) -> float | None:
    """How much of its range a picture uses, where that is at most `NARROW`; else None.

    Args:
        found: its least and greatest value, and those that are shown as black and white.
    """
    least, greatest, black, white = found
    share = (greatest - least) / max(white - black, 1e-300)
    return share if 0 < share <= NARROW else None


def table(low: float, high: float) -> np.ndarray:
    """(65536,) uint8: what each 16-bit value becomes where ``low`` is black and ``high`` white."""
    values = np.arange(1 << 16, dtype=np.float64)
    return scaled(values, low, high)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers as uint8, ``low`` as 0 and ``high`` as 255, rounded to nearest; beyond them clipped."""
    gray = (values.astype(np.float64) - low) * 255 / max(high - low, 1e-300)
    return np.rint(np.clip(gray, 0, 255)).astype(np.uint8)
