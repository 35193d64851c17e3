"""From the bytes of a picture file to upright RGB, by Pillow; nothing here needs torch.

What a viewer shows on white paper is what an encoder sees: turned as EXIF says, palettes and
CMYK resolved, transparency over white, 16-bit and float scaled to 8 bits, the first frame of an
animation.
"""

from __future__ import annotations

import io
import threading

import numpy as np
from PIL import Image, UnidentifiedImageError

from plait.core.errors import DataError
from plait.core.shapes import UInt8
from plait.data.exif import exif_orientation, upright

MAX_PIXELS = 100_000_000

_TIFF_ORIENTATION = 274
_opening = threading.Lock()

# First bytes of what people hand in by mistake, and what to tell them.
_NOT_PICTURES = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the picture: run 'git lfs pull'"),
    (b"<svg", "is an SVG drawing, which has no pixels: convert it to PNG"),
    (b"<!doctype html", "is a web page, not a picture: the download went wrong"),
    (b"<html", "is a web page, not a picture: the download went wrong"),
    (b"%pdf", "is a PDF document, not a picture: convert its pages to PNG"),
)
_HEIF_BRANDS = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc")


def decode_image(
    data: bytes, *, name: str, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture in ``data`` as RGB.

    Args:
        data: the content of a file in any format that Pillow reads.
        name: what to call it in messages.
        max_pixels: larger pictures are refused by their header, before any pixel is decoded.

    Raises:
        DataError: no bytes, no picture, a truncated or damaged file, or too many pixels.
    """
    with open_image(data, name=name, max_pixels=max_pixels) as image:
        try:
            image.load()
            return upright(to_rgb(image), orientation_of(image))
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


def open_image(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The header of the picture in ``data``: format, mode and size, no pixel decoded yet.

    Raises:
        DataError: no bytes, no picture, a damaged header, or too many pixels.
    """
    if not data:
        raise DataError("the file is empty (0 bytes)", path=name)
    try:
        image = _open(data)
    except UnidentifiedImageError as error:
        raise DataError(_what_it_is(data), path=name) from error
    except Exception as error:  # the same for damaged headers
        raise DataError(f"the header cannot be read: {_reason(error)}", path=name) from error
    _check_size(image, name, max_pixels)
    return image


def _open(data: bytes) -> Image.Image:
    """Reads the header. Pillow's own size limit is lifted: `open_image` has one that is exact.

    That limit is a global of Pillow, hence the lock; it is back in place before pixels are read.
    """
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
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
    if data[4:12] in _HEIF_BRANDS:
        return "is a HEIC picture, which cannot be read here: convert it to JPEG"
    return "is not a picture (JPEG, PNG, WebP, GIF, TIFF, BMP or another that Pillow reads)"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A loaded Pillow image of any mode as RGB, transparency over white."""
    if image.mode.startswith("I;16"):
        return _gray16(np.asarray(image).astype(np.int64), image.info.get("transparency"))
    if image.mode == "I":
        return _gray16(_into_16_bits(np.asarray(image)), None)
    if image.mode == "F":
        return _repeated(_float_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        return over_white(np.asarray(image.convert("RGBA")))
    if image.mode == "LAB":
        return np.asarray(_lab_to_rgb(image))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def over_white(rgba: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Colour * alpha + white * (1 - alpha), rounded to nearest."""
    alpha = rgba[..., 3:].astype(np.uint32)
    if (alpha == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _repeated(gray: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    return np.repeat(gray[..., None], 3, axis=2)


def _gray16(values: np.ndarray, transparent: object) -> UInt8[np.ndarray, "H W 3"]:
    """0..65535 to 0..255, rounded to nearest; one value may stand for transparency (PNG tRNS)."""
    gray = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return _repeated(gray)


def _into_16_bits(values: np.ndarray) -> np.ndarray:
    """32-bit integers: taken as 16-bit where they fit, else stretched from least to greatest."""
    values = values.astype(np.int64)
    least, greatest = int(values.min()), int(values.max())
    if least >= 0 and greatest <= 65535:
        return values
    return (values - least) * 65535 // max(1, greatest - least)


def _float_to_8_bits(values: np.ndarray) -> UInt8[np.ndarray, "H W"]:
    """0..1 as it is, 0..255 as it is, any other range stretched from least to greatest.

    Not-a-number and infinities are black.
    """
    finite = np.isfinite(values)
    if not finite.any():
        raise DataError("the picture has no finite value")
    known = values[finite].astype(np.float64)
    least, greatest = float(known.min()), float(known.max())
    if least >= 0 and greatest <= 1:
        low, high = 0.0, 1.0
    elif least >= 0 and greatest <= 255:
        low, high = 0.0, 255.0
    else:
        low, high = least, greatest
    gray = np.zeros(values.shape, np.uint8)
    gray[finite] = np.rint((known - low) / max(high - low, 1e-300) * 255).astype(np.uint8)
    return gray


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(lab, rgb, "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None only for a conversion in place
    return converted
