"""From a decoded picture to the pixels an encoder was trained on: resize and crop, in Pillow.

Pictures stay uint8: encoders normalise inside, with the `mean` and `std` kept here as data, so
that pixels can be cached and every engine sees the same bytes. Nothing here needs torch.

Shape legend: H, W the picture, h, w the encoder's input.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

import numpy as np
from PIL import Image

from plait.core.errors import DataError, RecipeError, did_you_mean
from plait.core.files import digest
from plait.core.shapes import UInt8
from plait.modalities.image.levels import Levels

LONGEST_EDGE: Final = 100_000
MOST_RESIZED: Final = 25_000_000  # pixels; a square encoder of 224 gets there at 500 to 1

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ImagePreprocess"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Resize = Literal["shortest", "squash", "pad"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
CropRounding = Literal["even", "down"]

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_CHOICES = {
    "resize": get_args(Resize),
    "interpolation": get_args(Interpolation),
    "crop_rounding": get_args(CropRounding),
}


@dataclass(frozen=True)
class ImagePreprocess:
    """Resizes with antialiasing, then crops the centre: uint8 (H, W, 3) to uint8 (3, h, w).

    Attributes:
        size: (h, w) of the result; one number means a square.
        resize: ``"shortest"`` keeps the aspect ratio, brings the shorter edge to
            ``floor(size / crop_fraction)`` and crops the centre; ``"squash"`` ignores the aspect
            ratio; ``"pad"`` keeps it and the whole picture, and fills the rest with ``fill``.
        crop_fraction: the share of the resized picture that the crop keeps (timm's ``crop_pct``);
            above 1, a border surrounds the picture.
        interpolation: Pillow's filter of that name.
        mean, std: per channel, for values in 0..1; applied by the encoder, not here.
        fill: the colour beyond the picture with ``"pad"``. White, as alpha is composited on white.
        levels: what becomes black and white in pictures of more than 8 bits a value, while they are
            decoded; None: what their files say.
        crop_rounding: an odd margin is halved to the nearest even number (torchvision, timm) or
            down (transformers); the two differ by one pixel.
    """

    size: tuple[int, int] | int = (224, 224)
    resize: Resize = "shortest"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    fill: tuple[int, ...] = (255, 255, 255)
    crop_rounding: CropRounding = "even"
    levels: Levels | None = None

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        for name, value in (("size", size), ("mean", self.mean), ("std", self.std)):
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "fill", tuple(self.fill))
        _check(self)

    @property
    def scaled_size(self) -> tuple[int, int]:
        """(h, w) that the resized picture covers before the crop."""
        # The small term keeps 224 / (224 / 232) at 232 in spite of rounding.
        height, width = (math.floor(edge / self.crop_fraction + 1e-6) for edge in self.size_2d)
        return height, width

    @property
    def size_2d(self) -> tuple[int, int]:
        """`size` as (h, w), whatever form it was given in."""
        assert not isinstance(self.size, int)
        return self.size

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) to which a picture of this size is resized, before crop or padding.

        Raises:
            DataError: a picture so long and thin that it would become a huge one.
        """
        found = self._scaled(height, width)
        if max(height, width) > LONGEST_EDGE or found[0] * found[1] > MOST_RESIZED:
            raise DataError(
                f"the picture has {width} x {height} pixels: it is too long and thin to be resized "
                f"to {self.scaled_size[1]} x {self.scaled_size[0]}; cut it"
            )
        return found

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        target_h, target_w = self.scaled_size
        if self.resize == "squash":
            return target_h, target_w
        if self.resize == "shortest" and target_h == target_w:
            # As torchvision: the longer edge is truncated.
            if height <= width:
                return target_h, int(target_h * width / height)
            return int(target_h * height / width), target_h
        # As timm where target edges differ, or where borders are added: both edges are rounded.
        ratios = height / target_h, width / target_w
        ratio = max(ratios) if self.resize == "pad" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def offset(self, margin: int) -> int:
        """Where the crop starts in a resized edge that is ``margin`` pixels too long.

        Negative where the edge is too short and gets a border.
        """
        if self.crop_rounding == "even" or margin < 0:
            return round(margin / 2) if margin >= 0 else -((-margin) // 2)
        return margin // 2

    def __call__(self, array: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "3 h w"]:
        """The pixels for the encoder; contiguous."""
        height, width = self.resized(*array.shape[:2])
        if (height, width) != array.shape[:2]:
            image = Image.fromarray(array)
            array = np.asarray(image.resize((width, height), _RESAMPLING[self.interpolation]))
        return np.ascontiguousarray(self.crop(array).transpose(2, 0, 1))

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of a resized picture of this size that the crop keeps."""
        top, left = self._offsets(height, width)
        wanted = self.size_2d
        return (
            slice(max(top, 0), min(top + wanted[0], height)),
            slice(max(left, 0), min(left + wanted[1], width)),
        )

    def crop(self, array: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The centre of a resized picture; a border where the picture is smaller."""
        height, width = self.size_2d
        top, left = self._offsets(*array.shape[:2])
        cropped = array[self.window(*array.shape[:2])]
        if cropped.shape[:2] == (height, width):
            return cropped
        # Outside "pad", a crop larger than the picture is surrounded by black in every library.
        border = np.array(self.fill if self.resize == "pad" else (0, 0, 0), np.uint8)
        result = np.broadcast_to(border, (height, width, 3)).copy()
        top, left = max(-top, 0), max(-left, 0)
        result[top : top + cropped.shape[0], left : left + cropped.shape[1]] = cropped
        return result

    def _offsets(self, height: int, width: int) -> tuple[int, int]:
        """Where the crop starts in a resized picture, see `offset`."""
        return self.offset(height - self.size_2d[0]), self.offset(width - self.size_2d[1])

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes the same object.

        ``levels`` are in it where there are any: older fingerprints and bundles stay what they are.
        """
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in values}
        del found["levels"]
        return found if self.levels is None else {**found, "levels": self.levels.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ImagePreprocess:
        """The inverse of `to_json`. Raises RecipeError for an unknown key or an unfit value."""
        known = [entry.name for entry in fields(cls)]
        for key in value:
            if key not in known:
                raise RecipeError(
                    f"image preprocessing has no setting {key!r}{did_you_mean(key, known)}"
                )
            if key in _CHOICES:
                _check_choice(key, value[key])
        given = {key: _tuple(entry) for key, entry in value.items()}
        if given.get("levels") is not None:
            given["levels"] = Levels.from_json(given["levels"])
        return cls(**given)

    @property
    def fingerprint(self) -> str:
        """Changes with every setting, normalisation included."""
        return digest("image-1", json.dumps(self.to_json(), sort_keys=True))

    @property
    def pixels_fingerprint(self) -> str:
        """Changes with the settings on which the pixels depend: the key of a pixel cache."""
        settings = self.to_json()
        del settings["mean"], settings["std"]
        return digest("pixels-1", json.dumps(settings, sort_keys=True))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _check_choice(name: str, value: Any) -> None:
    known = _CHOICES[name]
    if value not in known:
        raise RecipeError(
            f"{name} of image preprocessing is {value!r}; "
            f"it can be {', '.join(known)}{did_you_mean(str(value), known)}"
        )


def _check(settings: ImagePreprocess) -> None:
    """Raises RecipeError where a setting is impossible."""
    for name in _CHOICES:
        _check_choice(name, getattr(settings, name))
    if len(settings.size_2d) != 2 or min(settings.size_2d) < 1:
        raise RecipeError(f"size of image preprocessing is {settings.size}; give (height, width)")
    if not 0 < settings.crop_fraction <= 2:
        raise RecipeError(
            f"crop_fraction of image preprocessing is {settings.crop_fraction}; "
            "it must be above 0 and at most 2"
        )
    for name in ("mean", "std", "fill"):
        if len(getattr(settings, name)) != 3:
            raise RecipeError(f"{name} of image preprocessing needs three numbers, one a channel")
    if min(settings.std) <= 0:
        raise RecipeError(f"std of image preprocessing is {settings.std}; it must be positive")
