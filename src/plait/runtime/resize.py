"""Training's resize in numpy: the very pixels that torch's integer kernel gives, without torch.

torch resizes uint8 pictures in two passes, along the width and then along the height. Each weighs
its inputs by 16-bit integers and rounds to uint8 (aten/src/ATen/native/cpu/UpSampleKernel.cpp,
after Pillow-SIMD). Here each pass is a banded matrix product in float32, exact because every sum
is an integer below 2^24. Pillow's own resize has finer weights, and differs by up to two levels.

Shape legend: H, W a picture, h, w the encoder's input, n inputs and o outputs along one axis, m
other values.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np

from plait.core.shapes import UInt8
from plait.data.preprocess import ImagePreprocess

_EXACT: Final = 1 << 24
_MOST_BITS: Final = 22
_BLOCK: Final = 16  # outputs of one product: larger blocks multiply more zeros
_TAPS: Final = {"bilinear": 2, "bicubic": 4}


def preprocess_exactly(
    array: UInt8[np.ndarray, "H W 3"], preprocess: ImagePreprocess
) -> UInt8[np.ndarray, "3 h w"]:
    """What `plait.data.fast_decode.preprocess_fast` gives."""
    size = preprocess.resized(*array.shape[:2])
    if size == array.shape[:2] or preprocess.interpolation not in _TAPS:
        return preprocess(array)
    cropped = preprocess.crop(resize(array, size, preprocess.interpolation))
    return np.ascontiguousarray(cropped.transpose(2, 0, 1))


def resize(
    array: UInt8[np.ndarray, "H W 3"], size: tuple[int, int], interpolation: str
) -> UInt8[np.ndarray, "h w 3"]:
    """With antialiasing, to ``size`` (h, w); ``interpolation`` is ``bilinear`` or ``bicubic``."""
    height, width = array.shape[:2]
    columns = np.ascontiguousarray(array.transpose(1, 0, 2)).reshape(width, -1)
    columns = _along_first(columns, size[1], interpolation)
    upright = columns.reshape(size[1], height, 3).transpose(1, 0, 2)
    rows = np.ascontiguousarray(upright).reshape(height, -1)
    return _along_first(rows, size[0], interpolation).reshape(*size, 3)


def _along_first(
    values: UInt8[np.ndarray, "n m"], outputs: int, interpolation: str
) -> UInt8[np.ndarray, "o m"]:
    inputs = len(values)
    if inputs == outputs:
        return values
    starts, weights, bits = _weights(inputs, outputs, interpolation)
    half, taps = 1 << (bits - 1), weights.shape[1]
    exact = 255 * int(np.abs(weights).sum(axis=1).max()) + half < _EXACT
    result = np.empty((outputs, values.shape[1]), np.uint8)
    for first in range(0, outputs, _BLOCK):
        last = min(first + _BLOCK, outputs)
        low, high = int(starts[first]), min(int(starts[last - 1]) + taps, inputs)
        band = _band(starts[first:last] - low, weights[first:last], high - low)
        part = values[low:high].astype(np.float32)
        if exact:
            found = band.astype(np.float32) @ part
            found += half
        else:  # in two halves, each of which is exact
            found = (band >> 8).astype(np.float32) @ part.astype(np.float32)
            fine = (band & 255).astype(np.float32) @ part
            found = found.astype(np.float64) * 256 + fine + half
        found *= 2.0**-bits
        result[first:last] = np.clip(found, 0, 255, out=found)  # the cast rounds down
    return result


def _band(starts: np.ndarray, weights: np.ndarray, width: int) -> np.ndarray:
    """(o, width) integers: each row's weights from its start on, zeros elsewhere."""
    band = np.zeros((len(starts), width + weights.shape[1]), np.int32)
    places = starts[:, None] + np.arange(weights.shape[1])
    band[np.arange(len(starts))[:, None], places] = weights
    return band[:, :width]


@lru_cache(maxsize=64)
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
