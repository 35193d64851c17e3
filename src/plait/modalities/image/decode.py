"""From the bytes of a picture file to upright RGB, by Pillow; nothing here needs torch.

What a viewer shows on white paper is what an encoder sees: turned as EXIF says, palettes and
CMYK resolved, transparency over white, 16-bit and float scaled to 8 bits, the first frame of an
animation.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from plait.core.errors import DataError
from plait.core.shapes import UInt8
from plait.modalities.image import dicom, heif
from plait.modalities.image.exif import exif_orientation, stored
from plait.modalities.image.levels import (
    Levels,
    full_scale,
    is_deep_colour,
    narrow_share,
    scaled,
    stated_bits,
    swap_bytes,
    table,
)
from plait.modalities.image.structure import Bounds, kind_of, structure_of
from plait.modalities.image.whole import with_end

MAX_PIXELS = 100_000_000

_BAND: Final = 1 << 17  # pixels that are converted at a time: wide numbers only ever hold so many
_PROGRAMS: Final = frozenset({"EPS", "WMF"})  # formats for which Pillow calls other programs

_TIFF_ORIENTATION = 274
_OURS: Final[dict[str | None, Callable[[bytes], Image.Image]]] = {
    heif.FORMAT: heif.opened,
    dicom.FORMAT: dicom.opened,
}
_opening = threading.Lock()

_RAW = "camera raw file, which holds no finished picture: develop it to JPEG"

# First bytes of what people hand in by mistake, and what to tell them.
_NOT_PICTURES = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the picture: run 'git lfs pull'"),
    (b"<svg", "is an SVG drawing, which has no pixels: convert it to PNG"),
    (b"<!doctype html", "is a web page, not a picture: the download went wrong"),
    (b"<html", "is a web page, not a picture: the download went wrong"),
    (b"%pdf", "is a PDF document, not a picture: convert its pages to PNG"),
)
# The same in the middle of a file's head: where, the bytes, and what to tell.
_OTHER_FORMS = (
    (0, b"\xff\x0a", "is a JPEG XL picture: convert it to PNG or JPEG"),
    (4, b"JXL \r\n\x87\n", "is a JPEG XL picture: convert it to PNG or JPEG"),
    (4, b"jP  \r\n\x87\n", "is a JPEG 2000 picture, and this Pillow lacks its decoder: convert it"),
    (8, b"CR\x02\0", f"is a {_RAW}"),
    (4, b"ftypcrx ", f"is a {_RAW}"),
    (0, b"FUJIFILMCCD-RAW", f"is a {_RAW}"),
    (0, b"IIRO", f"is a {_RAW}"),
    (0, b"IIRS", f"is a {_RAW}"),
    (0, b"IIU\0", f"is a {_RAW}"),
)
_REDUCED, _INNER = 254, 330  # tags of TIFF: that a page is a small copy, and where others are


@dataclass(frozen=True, slots=True)
class Deep:
    """What only the file of a picture tells of values of more than 8 bits.

    Attributes:
        bits: how many of 16 it says that it uses; 0: nothing.
        lower: the lower bytes of a picture in colour of 16 bits, of which Pillow gives the upper.
        scan: a DICOM picture, which knows its window once it is loaded.
    """

    bits: int = 0
    lower: Image.Image | None = None
    scan: dicom.DicomImage | None = None


UNTOLD: Final = Deep()
"""Of a picture without a file."""


def decode_image(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] | None = None,
    bounds: Bounds | None = None,
    levels: Levels | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture in ``data`` as RGB.

    Beside what the decoder of its format takes, memory for 7 bytes a pixel.

    Args:
        data: the content of a file.
        name: what to call it in messages.
        max_pixels: larger pictures are refused by their header, before any pixel is decoded.
        formats: Pillow's names of those that may be decoded. Default: all that Pillow reads without
            another program. From strangers take `plait.modalities.image.structure.SAFE_FORMATS`.
        bounds: of the parts of the file; the default is far above every real picture.
        levels: what becomes black and white in a picture of more than 8 bits a value.

    Raises:
        DataError: no bytes, no picture, a truncated or damaged file, or too much of something.
    """
    with _loaded(data, name, max_pixels, formats, bounds) as (image, deep):
        return to_rgb(image, orientation_of(image), levels, deep)


def decode_to_show(
    data: bytes, *, name: str, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "H W 3"]:
    """`decode_image` for people's eyes: what would be dark or flat is stretched to what it uses."""
    with _loaded(data, name, max_pixels, None, None) as (image, deep):
        found = used_range(image, deep)
        narrow = found is not None and narrow_share(found) is not None
        levels = Levels(window=found[:2]) if found is not None and narrow else None
        return to_rgb(image, orientation_of(image), levels, deep)


def decode_lines(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] | None = None,
    levels: Levels | None = None,
) -> tuple[tuple[int, int], Callable[[int, int], np.ndarray]]:
    """`decode_image` without the array: 3 of its 7 bytes a pixel are spared.

    Returns:
        (height, width), and the rows of pixels from one to before another: uint8 (n, W, 3). A
        picture that is stored turned becomes an array.
    """
    with _loaded(data, name, max_pixels, formats, None) as (image, deep):
        turn = orientation_of(image)
        if turn != 1:
            array = to_rgb(image, turn, levels, deep)
            return array.shape[:2], lambda top, end: array[top:end]
        tones = _tones(image, levels, deep)

    def lines(top: int, end: int) -> np.ndarray:
        band = _band_to_rgb(image, top, end, tones)
        return np.broadcast_to(band, (*band.shape[:2], 3))

    return (image.height, image.width), lines


@contextmanager
def _loaded(
    data: bytes,
    name: str,
    max_pixels: int,
    formats: Sequence[str] | None,
    bounds: Bounds | None,
) -> Iterator[tuple[Image.Image, Deep]]:
    """The picture with its pixels; what goes wrong with it within is told as its fault."""
    with open_image(
        data, name=name, max_pixels=max_pixels, formats=formats, bounds=bounds
    ) as image:
        try:
            deep = deep_of(image, data, formats)
            yield _with_pixels(image, data, formats), deep
        except MemoryError:
            raise
        except DataError as error:
            raise DataError(error.problem, path=name) from error
        except Exception as error:  # plugins raise almost anything on damaged content
            raise DataError(
                f"the {image.format} picture is truncated or damaged: {_reason(error)}; "
                "replace the file",
                path=name,
            ) from error


def deep_of(image: Image.Image, data: bytes, formats: Sequence[str] | None = None) -> Deep:
    """What only the file of an opened picture, not loaded yet, tells of its values."""
    if isinstance(image, dicom.DicomImage):
        return Deep(scan=image)
    bits, lower = stated_bits(image, data), None
    if is_deep_colour(image):
        lower = _open(data, [str(image.format)], formats)
        swap_bytes(lower)
    return Deep(bits, lower)


def _with_pixels(image: Image.Image, data: bytes, formats: Sequence[str] | None) -> Image.Image:
    """The picture, loaded; from strangers nothing is taken that lacks its end marker."""
    try:
        image.load()
    except OSError:
        whole = with_end(data) if formats is None else None
        if whole is None:
            raise
        image = _open(whole, [str(image.format)], None)
        image.load()
    return image


def open_image(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] | None = None,
    bounds: Bounds | None = None,
) -> Image.Image:
    """The header of the picture in ``data``: format, mode and size, no pixel decoded yet.

    Takes the arguments of `decode_image`.

    Raises:
        DataError: no bytes, no picture, a damaged header, or too much of something.
    """
    if not data:
        raise DataError("the file is empty (0 bytes)", path=name)
    try:
        structure = structure_of(data, bounds)
    except DataError as error:
        raise DataError(error.problem, path=name) from error
    # Some decoders make room for the whole picture as soon as they are opened.
    _check_size(structure.width, structure.height, name, max_pixels, least=0)
    try:
        image = _open(data, [structure.kind] if structure.kind else _allowed(formats), formats)
    except DataError as error:
        raise DataError(error.problem, path=name) from error
    except UnidentifiedImageError as error:
        if structure.kind in _OURS and formats is None:
            problem = f"the {structure.kind} picture is truncated or damaged: replace the file"
            raise DataError(problem, path=name) from error
        raise DataError(_what_it_is(data), path=name) from error
    except Exception as error:  # the same for damaged headers
        raise DataError(f"the header cannot be read: {_reason(error)}", path=name) from error
    _check_size(*image.size, name, max_pixels)
    if _is_raw(image):
        raise DataError(f"is a {_RAW}", path=name)
    return image


def _is_raw(image: Image.Image) -> bool:
    """Whether a TIFF is the raw file of a camera: its first page is a small copy of an inner one."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and bool(tags.get(_REDUCED, 0) & 1) and _INNER in tags


def _allowed(formats: Sequence[str] | None) -> list[str]:
    """The formats that Pillow may try on bytes of an unknown kind."""
    if formats is not None:
        return list(formats)
    Image.init()
    return [name for name in Image.ID if name not in _PROGRAMS]


def _open(data: bytes, tried: Sequence[str], formats: Sequence[str] | None) -> Image.Image:
    """Reads the header. Pillow's own size limit is lifted: `open_image` has one that is exact.

    That limit is a global of Pillow, hence the lock; it is back in place before pixels are read.
    """
    if formats is not None and not set(tried) <= set(formats):
        raise UnidentifiedImageError
    if len(tried) == 1 and tried[0] in _OURS:  # slow to open, and no matter of Pillow's limit
        try:
            return _OURS[tried[0]](data)
        except SyntaxError as error:
            raise UnidentifiedImageError from error
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=list(tried))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(width: int, height: int, name: str, max_pixels: int, *, least: int = 1) -> None:
    if min(width, height) < least:
        raise DataError(f"the picture has no pixels ({width} x {height})", path=name)
    if width * height > max_pixels:
        raise DataError(
            f"the picture has {width} x {height} = {width * height:,} pixels, and the limit is "
            f"{max_pixels:,}: make it smaller, or leave it out",
            path=name,
        )


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, of an opened picture."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:  # TIFF keeps it among its own tags
        value = tags.get(_TIFF_ORIENTATION, 1)
        return value if value in range(1, 9) else 1
    exif = image.info.get("exif", b"")
    return exif_orientation(exif) if isinstance(exif, bytes) else 1


def _what_it_is(data: bytes) -> str:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for prefix, problem in _NOT_PICTURES:
        if start.startswith(prefix) or (prefix == b"<svg" and prefix in start[:512]):
            return problem
    kind = kind_of(data)
    if kind in _OURS:
        return f"is a {kind} picture, which cannot be read here: convert it to JPEG"
    for place, mark, problem in _OTHER_FORMS:
        if data[place : place + len(mark)] == mark:
            return problem
    return "is not a picture (JPEG, PNG, WebP, GIF, TIFF, BMP or another that Pillow reads)"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def to_rgb(
    image: Image.Image,
    orientation: int = 1,
    levels: Levels | None = None,
    deep: Deep = UNTOLD,
) -> UInt8[np.ndarray, "H W 3"]:
    """A loaded Pillow image of any mode as RGB, transparency over white.

    Args:
        image: as its file stores it.
        orientation: by EXIF; the result is upright.
        levels: what becomes black and white in a picture of more than 8 bits a value.
        deep: what its file tells of such values.

    Raises:
        DataError: a picture of floating-point numbers, none of which is finite.
    """
    width, height = image.size
    tones = _tones(image, levels, deep)
    shape = (width, height, 3) if orientation >= 5 else (height, width, 3)
    result = np.empty(shape, np.uint8)
    lines = stored(result, orientation)  # turned while it is written: no second copy
    for top, bottom in _bands(image):
        lines[top:bottom] = _band_to_rgb(image, top, bottom, tones)
    return result


def _bands(image: Image.Image) -> list[tuple[int, int]]:
    """The first row and the one after the last of each part that is converted at a time."""
    rows = max(1, _BAND // max(1, image.width))
    return [(top, min(top + rows, image.height)) for top in range(0, image.height, rows)]


@dataclass(frozen=True, slots=True)
class _Tones:
    """How values of more than 8 bits become 8.

    Attributes:
        low, high: what becomes black and white.
        table: (65536,) uint8, the same for values of 16 bits.
        lower: the lower bytes of a picture in colour, whose upper ones Pillow gives.
        wide: 32-bit integers go through 16 bits.
        curve: from values to ``low`` .. ``high``, where they do not lie on a line.
        inverted: the lowest value is white.
    """

    low: float
    high: float
    table: np.ndarray | None = None
    lower: Image.Image | None = None
    wide: bool = False
    curve: Callable[[np.ndarray], np.ndarray] | None = None
    inverted: bool = False


def _tones(image: Image.Image, levels: Levels | None, deep: Deep) -> _Tones | None:
    """Of a loaded picture; None where its values have 8 bits, or become so by Pillow.

    Raises:
        DataError: a picture of floating-point numbers, none of which is finite.
    """
    if image.mode.startswith("I;16") or (deep.lower is not None and (levels or deep.bits)):
        values = (_values(image, *band, deep.lower)[..., :3] for band in _bands(image))
        if levels is not None:
            low, high = levels.range_of(values, whole=True)
        else:
            low, high = 0.0, full_scale(image, deep.bits, values)
        return _Tones(low, high, table(low, high), deep.lower)
    if image.mode not in ("I", "F"):
        return None
    values = (_values(image, *band, None) for band in _bands(image))
    inverted = deep.scan is not None and deep.scan.inverted
    if levels is not None:
        return _Tones(*levels.range_of(values, whole=False), inverted=inverted)
    if deep.scan is not None and deep.scan.window is not None:
        return _Tones(*deep.scan.window, curve=deep.scan.curve, inverted=inverted)
    return _Tones(*_range_of(image, values), wide=image.mode == "I")


def used_range(image: Image.Image, deep: Deep) -> tuple[float, float, float, float] | None:
    """Least and greatest value of a loaded picture, and those that are shown as black and white.

    Of pictures of more than 8 bits a value; None for others.
    """
    if image.mode[0] not in "IF" and deep.lower is None:
        return None
    tones = _tones(image, None, replace(deep, bits=deep.bits or 16))
    if tones is None or tones.curve is not None:
        return None
    parts = (_values(image, *band, tones.lower)[..., :3] for band in _bands(image))
    ends = [
        (part[finite].min(), part[finite].max())
        for part in parts
        if (finite := np.isfinite(part)).any()
    ]
    return (
        float(min(low for low, _ in ends)),
        float(max(high for _, high in ends)),
        tones.low,
        tones.high,
    )


def _rows(image: Image.Image, top: int, bottom: int) -> Image.Image:
    """Some rows of a picture; itself where these are all."""
    if (top, bottom) == (0, image.height):
        return image
    return image.crop((0, top, image.width, bottom))


def _values(image: Image.Image, top: int, bottom: int, lower: Image.Image | None) -> np.ndarray:
    """Some rows of a picture's values; of 16-bit colour all 16 bits."""
    values = np.asarray(_rows(image, top, bottom))
    if lower is None:
        return values[..., None] if image.mode.startswith("I;16") else values
    return values.astype(np.uint16) << 8 | np.asarray(_rows(lower, top, bottom))


def _band_to_rgb(image: Image.Image, top: int, bottom: int, tones: _Tones | None) -> np.ndarray:
    """Rows of a picture, (n, W, 3), or (n, W, 1) of a gray one."""
    if tones is not None:
        values = _values(image, top, bottom, tones.lower)
        if tones.table is not None:
            return _by_table(image, values, tones.table)
        if tones.wide:
            return _wide(values.astype(np.int64), int(tones.low), int(tones.high))
        values = values if tones.curve is None else tones.curve(values)
        gray = _float_to_8_bits(values, tones.low, tones.high)[..., None]
        return 255 - gray if tones.inverted else gray
    image = _rows(image, top, bottom)
    if image.has_transparency_data:
        return over_white(np.asarray(image.convert("RGBA")))
    if image.mode == "LAB":
        return np.asarray(_lab_to_rgb(image))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _range_of(image: Image.Image, bands: Iterable[np.ndarray]) -> tuple[float, float]:
    """The values that become black and white in a picture of 32-bit integers or floats.

    Integers are taken as 16-bit where they fit, floats as 0..1 or 0..255; any other range is
    stretched from least to greatest. Not-a-number and infinities do not count.
    """
    least, greatest = np.inf, -np.inf
    for values in bands:
        finite = values if image.mode == "I" else values[np.isfinite(values)]
        if finite.size:
            least = min(least, float(finite.min()))
            greatest = max(greatest, float(finite.max()))
    if least > greatest:
        raise DataError("the picture has no finite value")
    for top_value in (65535.0,) if image.mode == "I" else (1.0, 255.0):
        if least >= 0 and greatest <= top_value:
            return 0.0, top_value
    return least, greatest


def over_white(rgba: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Colour * alpha + white * (1 - alpha), rounded to nearest."""
    alpha = rgba[..., 3:].astype(np.uint32)
    if (alpha == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _by_table(image: Image.Image, values: np.ndarray, tones: np.ndarray) -> np.ndarray:
    """Values of 16 bits by a table; one gray may stand for transparency (PNG tRNS)."""
    if image.mode == "RGBA":
        return over_white(np.dstack([tones[values[..., :3]], values[..., 3] >> 8]).astype(np.uint8))
    found = tones[values]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        found[values == transparent] = 255
    return found


def _wide(values: np.ndarray, low: int, high: int) -> UInt8[np.ndarray, "H W 1"]:
    """Integers of 32 bits, first brought to 16 where they are no such, rounded to nearest."""
    if (low, high) != (0, 65535):
        values = (values - low) * 65535 // max(1, high - low)
    return ((values * 255 + 32767) // 65535).astype(np.uint8)[..., None]


def _float_to_8_bits(values: np.ndarray, low: float, high: float) -> UInt8[np.ndarray, "H W"]:
    """``low`` to ``high`` as 0 to 255; not-a-number and infinities are black."""
    gray = np.zeros(values.shape, np.uint8)
    finite = np.isfinite(values)
    gray[finite] = scaled(values[finite], low, high)
    return gray


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(lab, rgb, "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None only for a conversion in place
    return converted
