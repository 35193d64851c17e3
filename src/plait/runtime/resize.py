"""Training's resize in numpy: the very pixels that torch's integer kernel gives, without torch.

torch resizes uint8 pictures in two passes, along the width and then along the height. Each weighs
its inputs by 16-bit integers and rounds to uint8 (aten/src/ATen/native/cpu/UpSampleKernel.cpp,
after Pillow-SIMD). Here each pass is a banded matrix product of whole numbers in floating point,
exact because every sum is one that the type holds: below 2^24 in float32, below 2^53 in float64.
Pillow's own resize has finer weights, and differs by up to two levels.

Shape legend: H, W a picture, h, w the encoder's input, n inputs and o outputs along one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from plait.core.shapes import UInt8
from plait.modalities.image.preprocess import ImagePreprocess

_EXACT: Final = 1 << 24  # of float32
_MOST_BITS: Final = 22
_BLOCK: Final = 16  # outputs of one product: larger blocks multiply more zeros
_STRIP: Final = 128  # lines in floating point at a time: they take four to eight times the room
_STRIP_PIXELS: Final = 1 << 18  # in them, at most
_REMEMBERED: Final = 8192  # the longest edge whose matrices are kept
_TAPS: Final = {"bilinear": 2, "bicubic": 4}

Lines = Callable[[int, int], np.ndarray]
"""(top, end) to the rows of pixels between them, uint8 (n, W, 3)."""


def preprocess_exactly(
    array: UInt8[np.ndarray, "H W 3"], preprocess: ImagePreprocess
) -> UInt8[np.ndarray, "3 h w"]:
    """What `plait.modalities.image.fast_decode.preprocess_fast` gives."""
    return preprocess_lines(array.shape[:2], lambda top, end: array[top:end], preprocess)


def preprocess_lines(
    shape: tuple[int, int], lines: Lines, preprocess: ImagePreprocess
) -> UInt8[np.ndarray, "3 h w"]:
    """`preprocess_exactly` of a picture that never is an array as a whole.

    Args:
        shape: height and width of the picture.
        lines: its rows of pixels from one to before another, (n, W, 3); few at a time.
        preprocess: of the encoder.
    """
    size = preprocess.resized(*shape)
    if size == shape or preprocess.interpolation not in _TAPS:
        return preprocess(lines(0, shape[0]))
    resized = resize(shape, lines, size, preprocess.interpolation, preprocess.window(*size))
    if resized.shape[1:] == preprocess.size_2d:
        return resized
    return np.ascontiguousarray(preprocess.crop(resized.transpose(1, 2, 0)).transpose(2, 0, 1))


def resize(
    shape: tuple[int, int],
    lines: Lines,
    size: tuple[int, int],
    interpolation: str,
    window: tuple[slice, slice],
) -> UInt8[np.ndarray, "3 h w"]:
    """A picture resized with antialiasing, colour by colour.

    Args:
        shape: of the picture, as in `preprocess_lines`.
        lines: of it.
        size: the whole of it is resized to (height, width).
        interpolation: ``bilinear`` or ``bicubic``.
        window: the rows and columns of the result that are wanted.
    """
    height, width = shape
    rows, columns = window
    make = _Pass.kept if max(height, width) <= _REMEMBERED else _Pass.of
    down = make(height, size[0], interpolation, rows.start, rows.stop)
    along = make(width, size[1], interpolation, columns.start, columns.stop)
    values = np.empty((3, down.high - down.low, columns.stop - columns.start), np.uint8)
    step = max(1, min(_STRIP, _STRIP_PIXELS // width))
    for first in range(down.low, down.high, step):
        last = min(first + step, down.high)
        part = lines(first, last)[:, along.low : along.high].transpose(2, 0, 1)
        strip = part.astype(along.dtype, order="C")
        values[:, first - down.low : last - down.low] = along.last_axis(strip)
    return down.middle_axis(values).astype(np.uint8)


@dataclass(frozen=True)
class _Pass:
    """Some outputs of the resize along one axis, as banded matrices.

    Attributes:
        low, high: the inputs that take part.
        blocks: of each: its first and last output, its first and last input (counted from ``low``),
            and its weights, whole numbers (outputs, inputs).
        bits: what the weights are scaled by.
        dtype: in which all sums are exact.
    """

    low: int
    high: int
    blocks: tuple[tuple[int, int, int, int, np.ndarray], ...]
    bits: int
    dtype: type[np.floating]

    @staticmethod
    @lru_cache(maxsize=64)
    def kept(inputs: int, outputs: int, interpolation: str, start: int, stop: int) -> _Pass:
        """`of`, remembered: the matrices take about 150 bytes an input."""
        return _Pass.of(inputs, outputs, interpolation, start, stop)

    @staticmethod
    def of(inputs: int, outputs: int, interpolation: str, start: int, stop: int) -> _Pass:
        """The outputs from ``start`` to ``stop``; where the size stays there are no blocks."""
        if inputs == outputs:
            return _Pass(start, stop, (), 0, np.float32)
        starts, weights, bits = _weights(inputs, outputs, interpolation)
        starts, weights = starts[start:stop], weights[start:stop]
        taps = weights.shape[1]
        low, high = int(starts[0]), min(int(starts[-1]) + taps, inputs)
        largest = 255 * int(np.abs(weights).sum(axis=1).max()) + (1 << (bits - 1))
        dtype = np.float32 if largest < _EXACT else np.float64
        blocks = []
        for first in range(0, len(starts), _BLOCK):
            last = min(first + _BLOCK, len(starts))
            begin, end = int(starts[first]), min(int(starts[last - 1]) + taps, inputs)
            band = _band(starts[first:last] - begin, weights[first:last], end - begin)
            blocks.append((first, last, begin - low, end - low, band.astype(dtype)))
        return _Pass(low, high, tuple(blocks), bits, dtype)

    def middle_axis(self, values: np.ndarray) -> np.ndarray:
        """(3, n, m) uint8 to (3, o, m) whole numbers from 0 to 255 in `dtype`."""
        if not self.blocks:
            return values
        found = np.empty((len(values), self.blocks[-1][1], values.shape[2]), self.dtype)
        for first, last, low, high, band in self.blocks:
            np.matmul(band, values[:, low:high].astype(self.dtype), out=found[:, first:last])
        return self._rounded(found)

    def last_axis(self, values: np.ndarray) -> np.ndarray:
        """(3, m, n) whole numbers in `dtype` to (3, m, o) of the same kind."""
        if not self.blocks:
            return values
        lines = values.reshape(-1, values.shape[2])
        found = np.empty((len(lines), self.blocks[-1][1]), self.dtype)
        for first, last, low, high, band in self.blocks:
            np.matmul(lines[:, low:high], band.T, out=found[:, first:last])
        return self._rounded(found).reshape(*values.shape[:2], -1)

    def _rounded(self, sums: np.ndarray) -> np.ndarray:
        sums += 1 << (self.bits - 1)
        sums *= 2.0**-self.bits
        np.floor(sums, out=sums)
        return np.clip(sums, 0, 255, out=sums)


def _band(starts: np.ndarray, weights: np.ndarray, width: int) -> np.ndarray:
    """(o, width) integers: each row's weights from its start on, zeros elsewhere."""
    band = np.zeros((len(starts), width + weights.shape[1]), np.int32)
    places = starts[:, None] + np.arange(weights.shape[1])
    band[np.arange(len(starts))[:, None], places] = weights
    return band[:, :width]


def _weights(inputs: int, outputs: int, interpolation: str) -> tuple[np.ndarray, np.ndarray, int]:
    """(first input of each output, its integer weights (o, taps), the bits they are scaled by)."""
    scale = inputs / outputs
    support = _TAPS[interpolation] / 2 * max(scale, 1.0)
    taps = math.ceil(support) * 2 + 1
    centre = scale * (np.arange(outputs) + 0.5)
    starts = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    counts = np.minimum((centre + support + 0.5).astype(np.int64), inputs) - starts
    counts = np.clip(counts, 0, taps)
    offsets = np.arange(taps)
    distance = (offsets + starts[:, None] - centre[:, None] + 0.5) / max(scale, 1.0)
    found = np.where(offsets < counts[:, None], _FILTERS[interpolation](np.abs(distance)), 0.0)
    found /= found.sum(axis=1, keepdims=True)
    bits = _bits(float(found.max()))
    # Halves are rounded away from zero.
    scaled = found * (1 << bits)
    return starts, np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)).astype(np.int32), bits


def _bits(largest: float) -> int:
    """The most bits at which the largest weight still fits into 16 with its sign."""
    for bits in range(_MOST_BITS):
        if int(0.5 + largest * (1 << (bits + 1))) >= 1 << 15:
            return bits
    return _MOST_BITS


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.where(distance < 1, 1 - distance, 0.0)


def _cubic(distance: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys 1981, with a = -1/2."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * a
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


_FILTERS: Final = {"bilinear": _triangle, "bicubic": _cubic}
