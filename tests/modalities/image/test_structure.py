"""Files that ask a decoder for far more than they show, made here, and real ones beside them."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from plait.core.errors import DataError
from plait.modalities.image.decode import decode_image
from plait.modalities.image.structure import SAFE_FORMATS, Bounds, structure_of


def noise(height: int = 48, width: int = 64, channels: int = 3) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, channels), dtype=np.uint8))


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with(*parts: bytes) -> bytes:
    data = encoded(noise(), "JPEG")
    return data[:2] + b"".join(parts) + data[2:]


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times."""
    data = encoded(noise(), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + b"\xff\xd9"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    data = encoded(noise(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def gif_with(blocks: int) -> bytes:
    data = encoded(noise().convert("P"), "GIF")
    start = 13 + (3 << ((data[10] & 7) + 1))
    return data[:start] + b"\x21\xfe" + b"\x01a" * blocks + b"\0" + data[start:]


def webp_with(kind: bytes, count: int) -> bytes:
    body = encoded(noise(), "WEBP")[12:] + (kind + struct.pack("<L", 0)) * count
    return b"RIFF" + struct.pack("<L", len(body) + 4) + b"WEBP" + body


def directory(*tags: tuple[int, int, int, int], after: int = 0, start: int = 8) -> bytes:
    """A TIFF's header and one directory of (tag, type, count, value or place)."""
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<L", start)
    return head + struct.pack("<H", len(tags)) + entries + struct.pack("<L", after)


SIZE = ((256, 4, 1, 8), (257, 4, 1, 8))
OVERLAPPING = directory(*SIZE, *((60_000 + n, 1, 30_000, 100) for n in range(500))) + bytes(60_000)

BOMBS = {
    "jpeg scans": (jpeg_of_scans(2000), "more than 100 scans"),
    "jpeg segments": (jpeg_with(segment(0xE5, b"") * 5000), "more than 4,096 segments"),
    "jpeg comments": (jpeg_with(segment(0xFE, b"x") * 5000), "more than 4,096 segments"),
    "jpeg junk": (jpeg_with(segment(0xFE, b""), bytes(1 << 20)), "more than 4,096 segments"),
    "jpeg end first": (jpeg_with(b"\xff\xd9", segment(0xE5, b"") * 5000), "more than 4,096"),
    "jpeg bare": (jpeg_with(segment(0xF0, b"\xff\xe5\0\2" * 5000)), "more than 4,096"),
    "exif overlapping": (
        jpeg_with(segment(0xE1, b"Exif\0\0" + OVERLAPPING[:60_000])),
        "same bytes many times",
    ),
    "exif in two parts": (
        jpeg_with(
            segment(0xE1, b"Exif\0\0" + OVERLAPPING[:1000]),
            segment(0xE1, b"Exif\0\0" + OVERLAPPING[1000:60_000]),
        ),
        "same bytes many times",
    ),
    "mpf overlapping": (jpeg_with(segment(0xE2, b"MPF\0" + OVERLAPPING[:60_000])), "same bytes"),
    "png chunks": (png_with(chunk(b"tEXt", b"a\0b") * 5000), "more than 4,096 segments, chunks"),
    "png packed texts": (
        png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 300),
        "more than 256 compressed texts",
    ),
    "png profiles": (
        png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 300),
        "more than 256 compressed texts",
    ),
    "png empty pixels": (png_with(chunk(b"IDAT") * 20_000), "more than 4,096"),
    "apng frames": (png_with(chunk(b"acTL", struct.pack(">LL", 30_000, 0))), "20,000 frames"),
    "gif comment": (gif_with(5000), "more than 4,096"),
    "webp chunks": (webp_with(b"ABCD", 5000), "more than 4,096"),
    "webp frames": (webp_with(b"ANMF", 20_001), "20,000 frames"),
    "tiff overlapping": (OVERLAPPING, "same bytes many times"),
    "tiff tags": (directory(*((n, 3, 1, 0) for n in range(5000))), "more than 4,096 tags"),
    "tiff strips": (directory(*SIZE, (273, 4, 50_000, 100)) + bytes(300_000), "values of tag 273"),
    "tiff bits": (directory(*SIZE, (258, 3, 50_000, 100)) + bytes(300_000), "values of tag 258"),
    "tiff ring": (directory(*SIZE, after=8), "form a ring"),
    "avif boxes": (
        b"\0\0\0\x10ftypavif\0\0\0\0" + (struct.pack(">L", 8) + b"free") * 5000,
        "more than 4,096",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_decoded(name: str) -> None:
    data, words = BOMBS[name]
    began = time.thread_time()
    with pytest.raises(DataError, match=rf"^x: .*{words}"):
        decode_image(data, name="x")
    assert time.thread_time() - began < 0.5  # hundredths, on a quiet machine


@pytest.mark.parametrize("name", BOMBS)
def test_bounds_are_the_callers(name: str) -> None:
    many = 1 << 20
    wide = Bounds(scans=many, chunks=many, packed=many, tags=many, frames=many)
    _, words = BOMBS[name]
    if words.startswith(("same", "values", "form")):  # no number of them is right
        with pytest.raises(DataError):
            structure_of(BOMBS[name][0], wide)
    else:
        structure_of(BOMBS[name][0], wide)


def test_scans_are_counted_as_they_are() -> None:
    start = structure_of(encoded(noise(), "JPEG", progressive=True)).scans
    assert 5 <= start <= 12  # what libjpeg writes
    assert structure_of(jpeg_of_scans(50)).scans == start + 49
    assert decode_image(jpeg_of_scans(50), name="x").shape == (48, 64, 3)


REAL = {
    "jpeg": (encoded(noise(), "JPEG"), True),
    "jpeg with a profile": (encoded(noise(), "JPEG", icc_profile=bytes(300_000)), True),
    "gray jpeg": (encoded(noise().convert("L"), "JPEG"), True),
    "progressive jpeg": (encoded(noise(), "JPEG", progressive=True), False),
    "cmyk jpeg": (encoded(noise().convert("CMYK"), "JPEG"), False),
    "two frame headers": (
        jpeg_with(segment(0xC0, b"\x08" + struct.pack(">HHB", 48, 64, 3) + bytes(9))),
        False,
    ),
    "png": (encoded(noise(), "PNG"), True),
    "rgba png": (encoded(noise(channels=4), "PNG"), True),
    "png of 16 bits": (encoded(Image.fromarray(np.zeros((48, 64), np.uint16)), "PNG"), False),
    "png with packed text": (png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b"))), False),
    "webp": (encoded(noise(), "WEBP"), True),
    "lossless webp": (encoded(noise(channels=4), "WEBP", lossless=True), True),
    "moving webp": (
        encoded(noise(), "WEBP", save_all=True, append_images=[noise(channels=4)]),
        False,
    ),
    "gif": (encoded(noise(), "GIF"), False),
    "bmp": (encoded(noise(), "BMP"), False),
    "tiff": (encoded(noise(), "TIFF", compression="tiff_lzw"), False),
    "avif": (encoded(noise(), "AVIF"), False),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_their_size_and_kind(name: str) -> None:
    data, plain = REAL[name]
    found = structure_of(data)
    assert (found.width, found.height) == (64, 48)
    assert found.plain is plain
    assert found.kind in SAFE_FORMATS


def test_real_files_are_decoded_where_formats_are_limited() -> None:
    for name, (data, _) in REAL.items():
        if name != "two frame headers":
            assert decode_image(data, name=name, formats=SAFE_FORMATS).shape == (48, 64, 3)


def test_sizes_are_checked_before_a_decoder_is_made() -> None:
    body = struct.pack("<LL", 0, 0)[:4] + (16_383).to_bytes(3, "little") * 2
    data = b"RIFF\x1e\0\0\0WEBPVP8X" + struct.pack("<L", 10) + body
    with pytest.raises(DataError, match="16384 x 16384 = 268,435,456 pixels"):
        decode_image(data, name="x")


def test_no_format_that_runs_programs_and_none_beyond_those_allowed() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match="is not a picture"):
        decode_image(eps, name="x")
    portable = b"P5 1 1 255\n\0"
    assert decode_image(portable, name="x").shape == (1, 1, 3)
    with pytest.raises(DataError, match="is not a picture"):
        decode_image(portable, name="x", formats=SAFE_FORMATS)
    with pytest.raises(DataError, match="is not a picture"):
        decode_image(encoded(noise(), "GIF"), name="x", formats=["JPEG"])
