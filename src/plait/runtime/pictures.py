"""From whatever a caller has to the pixels of an encoder, without torch.

Training takes the fast twins of these functions (`plait.modalities.image.fast_decode`), which give the same
pixels.

Shape legend: H, W a picture, B pictures, h, w the encoder's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from plait.core.errors import DataError
from plait.core.media import FileRef, MediaRef
from plait.core.shapes import UInt8
from plait.modalities.image.decode import decode_image, to_rgb
from plait.modalities.image.levels import Levels
from plait.modalities.image.preprocess import ImagePreprocess
from plait.runtime.resize import preprocess_exactly

Decode = Callable[..., np.ndarray]


def to_array(
    picture: Any, number: int, decode: Decode = decode_image, levels: Levels | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """A path, the bytes of a file, a PIL image, an array or a media reference as uint8 RGB.

    Args:
        picture: one of these.
        number: names it in messages if nothing else does.
        decode: (bytes, name=, levels=) to the picture.
        levels: of pictures of more than 8 bits a value.

    Raises:
        DataError: it is none of these, or can't be decoded.
    """
    if isinstance(picture, str | Path):
        picture = FileRef(Path(picture))
    if isinstance(picture, bytes | bytearray):
        return decode(bytes(picture), name=f"image {number}", levels=levels)
    if isinstance(picture, Image.Image):
        return np.ascontiguousarray(to_rgb(picture, levels=levels))
    if isinstance(picture, np.ndarray):
        if picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
            return picture
        raise DataError(
            f"image {number} is an array of {picture.dtype} {picture.shape};"
            " give uint8 of shape (height, width, 3)"
        )
    if isinstance(picture, MediaRef):
        return decode(picture.read(), name=picture.name, levels=levels)
    raise DataError(
        f"image {number} is a {type(picture).__name__}; give a path, the bytes of a file, a PIL"
        " image, a uint8 array or a media reference"
    )


def pixels_of(
    pictures: Sequence[Any], preprocess: ImagePreprocess, first: int = 0
) -> UInt8[np.ndarray, "B 3 h w"]:
    """The pixels of pictures; ``first`` is the number of the first for messages.

    Raises:
        DataError: see `to_array`.
    """
    arrays = (
        to_array(item, first + place, levels=preprocess.levels)
        for place, item in enumerate(pictures)
    )
    rows = [preprocess_exactly(array, preprocess) for array in arrays]
    return np.stack(rows) if rows else np.zeros((0, 3, *preprocess.size_2d), np.uint8)
