"""The orientation tag of EXIF data, read without a library.

Pillow's reader warns about damaged EXIF through `warnings`, which threads share; a damaged tag
simply means that the picture is not turned.
"""

from __future__ import annotations

import struct

import numpy as np

_ORIENTATION = 0x0112
_TYPES = {1: "B", 3: "H", 4: "L"}  # BYTE, SHORT and LONG: writers use all three


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block; 1 (upright) if absent or damaged.

    Args:
        exif: a TIFF header and directory, with or without ``Exif`` and two zeros before it.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}L", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for index in range(count):
            entry = start + 2 + 12 * index
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _ORIENTATION and kind in _TYPES:
                (value,) = struct.unpack_from(order + _TYPES[kind], exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the directory points beyond the block
        return 1
    return 1


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an upright picture as the file stores it: the inverse of `upright`, uncopied."""
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array.swapaxes(0, 1) if orientation >= 5 else array


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """A picture (H, W, ...) turned as its orientation tag says (EXIF 2.32, section 4.6.4)."""
    if orientation >= 5:  # 5 to 8: rows and columns are exchanged
        array = array.swapaxes(0, 1)
    # After the exchange, what remains is a mirror along either axis.
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
