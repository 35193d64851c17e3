"""The changes of pictures that `plait.modalities.image.augment` composes, each for one picture.

They work on uint8 in numpy, and in torch where it is serial: they run in loader threads beside
the training, which has the cores for its own.

Shape legend: H, W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch.nn import functional

Pixels = UInt8[np.ndarray, "3 H W"]
Draw = Float[np.ndarray, " draws"]
Span = tuple[float, float]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def _between(span: Span, value: float) -> float:
    return span[0] + (span[1] - span[0]) * float(value)


def _between_logs(span: Span, value: float) -> float:
    return math.exp(_between((math.log(span[0]), math.log(span[1])), value))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _box(shape: tuple[int, ...], area: float, stretch: float, draw: Draw) -> tuple[slice, slice]:
    """A box of ``area`` (a share of the whole) and ``stretch`` (width by height) in a picture."""
    _, height, width = shape
    wide = min(width, max(1, round(width * math.sqrt(area * stretch))))
    high = min(height, max(1, round(height * math.sqrt(area / stretch))))
    top, left = int(draw[0] * (height - high + 1)), int(draw[1] * (width - wide + 1))
    return slice(top, top + high), slice(left, left + wide)


@dataclass(frozen=True)
class Crop:
    """A random part, resized to the whole (Szegedy et al. 2015, section 6).

    Attributes:
        scale: least and greatest area, as shares of the whole.
        ratio: least and greatest width by height, relative to the picture's own; log-uniform.
    """

    kind: ClassVar[str] = "crop"
    draws: ClassVar[int] = 4
    scale: Span = (0.6, 1.0)
    ratio: Span = (0.75, 4 / 3)

    def apply(self, pixels: Pixels, draw: Draw) -> Pixels:
        """The part that ``draw`` chooses."""
        area, stretch = _between(self.scale, draw[0]), _between_logs(self.ratio, draw[1])
        rows, columns = _box(pixels.shape, area, stretch, draw[2:])
        part = torch.from_numpy(np.array(pixels[:, rows, columns], order="C"))
        size = tuple(pixels.shape[1:])
        resized = functional.interpolate(
            part[None], size=size, mode="bilinear", antialias=True, align_corners=False
        )
        return resized[0].numpy()


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged. Not for pictures with writing, nor where sides have meaning."""

    kind: ClassVar[str] = "flip"
    draws: ClassVar[int] = 1
    probability: float = 0.5

    def apply(self, pixels: Pixels, draw: Draw) -> Pixels:
        """The picture or its mirror image."""
        return pixels[:, :, ::-1].copy() if draw[0] < self.probability else pixels


@dataclass(frozen=True)
class Colour:
    """One random affine map of colours.

    Brightness, contrast (about the mean luma) and saturation (about each pixel's luma) are
    multiplied by 1 - x to 1 + x; hue turns by -x to x of a circle about the grey axis of RGB.

    Attributes:
        brightness, contrast, saturation: at most 1.
        hue: at most 0.5.
        probability: of any change.
    """

    kind: ClassVar[str] = "colour"
    draws: ClassVar[int] = 5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0
    probability: float = 1.0

    def apply(self, pixels: Pixels, draw: Draw) -> Pixels:
        """The picture in the colours that ``draw`` chooses."""
        if draw[4] >= self.probability:
            return pixels
        signed = 2 * draw - 1
        brightness, contrast, saturation = (
            1 + amount * value
            for amount, value in zip((self.brightness, self.contrast, self.saturation), signed)
        )
        gray = np.outer(np.ones(3), _LUMA)
        matrix = saturation * np.eye(3) + (1 - saturation) * gray
        matrix = _about_grey(2 * math.pi * self.hue * signed[3]) @ matrix
        # The mean over whole numbers: exact, whatever the order of summing.
        sums = pixels.reshape(3, -1).sum(1, dtype=np.int64)
        mean = float(_LUMA @ sums) / pixels[0].size
        matrix = (brightness * contrast * matrix).astype(np.float32)
        offset = np.float32(brightness * (1 - contrast) * mean)
        red, green, blue = pixels.astype(np.float32)
        rows = [row[0] * red + row[1] * green + row[2] * blue + offset for row in matrix]
        return _to_uint8(np.stack(rows))


def _about_grey(angle: float) -> Float[np.ndarray, "3 3"]:
    """The rotation of RGB about (1, 1, 1) by ``angle`` radians (Rodrigues' formula)."""
    axis = np.ones(3) / math.sqrt(3)
    cross = np.array(
        [[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]], np.float64
    )
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


@dataclass(frozen=True)
class Erase:
    """A random rectangle filled with one grey (Zhong et al. 2017).

    Attributes:
        probability: that anything is erased.
        area: least and greatest area, as shares of the whole.
        ratio: least and greatest width by height, relative to the picture's own; log-uniform.
    """

    kind: ClassVar[str] = "erase"
    draws: ClassVar[int] = 6
    probability: float = 0.25
    area: Span = (0.02, 0.2)
    ratio: Span = (0.3, 3.3)

    def apply(self, pixels: Pixels, draw: Draw) -> Pixels:
        """The picture with the rectangle that ``draw`` chooses."""
        if draw[0] >= self.probability:
            return pixels
        area, stretch = _between(self.area, draw[1]), _between_logs(self.ratio, draw[2])
        rows, columns = _box(pixels.shape, area, stretch, draw[3:5])
        result = pixels.copy()
        result[:, rows, columns] = int(draw[5] * 256)
        return result


@dataclass(frozen=True)
class Affine:
    """A small rotation, shift and scaling about the centre.

    Attributes:
        degrees: turned by -x to x.
        shift: moved by -x to x of each edge's length.
        scale: least and greatest size.
        fill: the grey that enters from outside, 0 to 255.
    """

    kind: ClassVar[str] = "affine"
    draws: ClassVar[int] = 4
    degrees: float = 10.0
    shift: float = 0.05
    scale: Span = (0.9, 1.1)
    fill: float = 255.0

    def apply(self, pixels: Pixels, draw: Draw) -> Pixels:
        """The picture moved as ``draw`` chooses."""
        _, height, width = pixels.shape
        angle = math.radians(self.degrees * (2 * draw[0] - 1))
        scale = _between(self.scale, draw[1])
        shift = self.shift * (2 * draw[2:4] - 1) * (width, height)
        source = _sources(height, width, angle, scale, shift)
        # Shifted so that the zeros which grid_sample takes from outside become the fill.
        values = torch.from_numpy(pixels.astype(np.float32) - np.float32(self.fill))
        moved = functional.grid_sample(
            values[None], torch.from_numpy(source)[None], align_corners=False
        )
        return _to_uint8(moved[0].numpy() + np.float32(self.fill))


def _sources(
    height: int, width: int, angle: float, scale: float, shift: np.ndarray
) -> Float32[np.ndarray, "H W 2"]:
    """Where each pixel of the result comes from: (x, y), each -1 to 1 between the outer edges."""
    # In pixels from the centre: result = scale * turn(source) + shift, solved for the source.
    x = np.arange(width) - (width - 1) / 2 - shift[0]
    y = (np.arange(height) - (height - 1) / 2 - shift[1])[:, None]
    sine, cosine = math.sin(angle) / scale, math.cos(angle) / scale
    from_x = (cosine * x + sine * y) * (2 / width)
    from_y = (cosine * y - sine * x) * (2 / height)
    return np.stack([from_x, from_y], axis=-1).astype(np.float32)


IMAGE_STEPS = {step.kind: step for step in (Crop, Flip, Colour, Erase, Affine)}
