"""Hand-made pictures whose pixels are known, in every form that decoding must bring to RGB."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plait.core.errors import DataError
from plait.modalities.image.decode import decode_image, over_white, to_rgb
from plait.modalities.image.exif import exif_orientation
from plait.modalities.image.whole import with_end


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    return decode_image(data, name="images/1.x")


def gray(rows: list[list[int]]) -> np.ndarray:
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=2)


# What a stored picture [[1, 2, 3], [4, 5, 6]] looks like by orientation, from the table of EXIF
# 2.32, 4.6.4: where row 0 and column 0 of the stored picture are on the screen.
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],  # row 0 top, column 0 left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # row 0 left, column 0 top
    6: [[4, 1], [5, 2], [6, 3]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[3, 6], [2, 5], [1, 4]],  # left, bottom
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_is_turned_upright(form: str, orientation: int) -> None:
    stored = Image.fromarray(gray(UPRIGHT[1]) * 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(stored, form, exif=exif, **options)
    np.testing.assert_array_equal(decode(data), gray(UPRIGHT[orientation]) * 40)


def test_orientation_of_a_jpeg() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, 16:] = 255
    decoded = decode(encoded(Image.fromarray(stored), "JPEG", exif=exif))
    assert decoded.shape == (32, 16, 3)
    assert decoded[:16].max() < 10 and decoded[16:].min() > 245


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "L")])
def test_exif_in_both_byte_orders_and_all_widths(order: str, kind: int, code: str) -> None:
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HL", 42, 8)
    other = struct.pack(f"{order}HHLL", 0x010F, 3, 1, 0)
    entry = struct.pack(f"{order}HHL", 0x0112, kind, 1) + struct.pack(order + code, 8).ljust(
        4, b"\0"
    )
    directory = struct.pack(f"{order}H", 2) + other + entry
    assert exif_orientation(b"Exif\0\0" + head + directory) == 8
    assert exif_orientation(head + directory) == 8


@given(st.binary(max_size=64))
def test_damaged_exif_means_upright(tail: bytes) -> None:
    assert exif_orientation(b"Exif\0\0II*\0" + tail) in range(1, 9)
    assert exif_orientation(tail) in range(1, 9)
    assert exif_orientation(b"II*\0\xff\xff\xff\x00") == 1


def test_palette() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), [[[10, 20, 30], [200, 100, 50]]])


def test_palette_with_transparency_over_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    image.putdata([0, 1, 2])
    data = encoded(image, "PNG", transparency=bytes([0, 255, 51]))
    # 51 / 255 = 0.2 of black over white: 0.8 * 255 = 204.
    expected = [[[255, 255, 255], [200, 100, 50], [204, 204, 204]]]
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_alpha_over_white(form: str) -> None:
    pixels = np.array([[[255, 0, 0, 255], [0, 0, 255, 0], [10, 20, 30, 255]]], np.uint8)
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(pixels), form, **options)
    expected = [[[255, 0, 0], [255, 255, 255], [10, 20, 30]]]
    np.testing.assert_array_equal(decode(data), expected)


@given(st.integers(0, 255), st.integers(0, 255))
def test_compositing_rounds_to_nearest(value: int, alpha: int) -> None:
    exact = (value * alpha + 255 * (255 - alpha)) / 255
    got = over_white(np.array([[[value, value, value, alpha]]], np.uint8))
    assert abs(int(got[0, 0, 0]) - exact) <= 0.5


def test_gray_with_alpha() -> None:
    pixels = np.array([[[0, 255], [0, 0], [100, 255]]], np.uint8)
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(pixels, "LA"), "PNG")), gray([[0, 255, 100]])
    )


@pytest.mark.parametrize(
    ("image", "transparency", "expected"),
    [
        (Image.fromarray(np.array([[7, 9]], np.uint8)), 7, gray([[255, 9]])),
        (Image.fromarray(gray([[7, 9]])), (7, 7, 7), gray([[255, 9]])),
        (Image.fromarray(np.array([[7, 257 * 9]], np.uint16)), 7, gray([[255, 9]])),
    ],
    ids=["gray", "colour", "gray of 16 bits"],
)
def test_a_transparent_colour_becomes_white(
    image: Image.Image, transparency: object, expected: np.ndarray
) -> None:
    data = encoded(image, "PNG", transparency=transparency)
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize(
    ("cmyk", "rgb"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),  # no ink: paper
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 255, 0), (255, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 128), (127, 127, 127)),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(form: str, cmyk: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    options = {"quality": 100} if form == "JPEG" else {}
    data = encoded(Image.new("CMYK", (8, 8), cmyk), form, **options)
    assert np.abs(decode(data).astype(int) - rgb).max() <= 2


def test_ycck_jpeg_as_photoshop_writes_it() -> None:
    # Pillow writes the complement of CMYK, with an Adobe marker whose last byte says "no
    # transform". Saying 2 (YCCK) instead, the decoder takes the four stored channels as
    # Y Cb Cr K: with R' = Y + 1.402 (Cr - 128) and so on, red is (255 - R') K / 255.
    luma, cb, cr, black = 100, 128, 178, 255
    stored = Image.new("CMYK", (8, 8), tuple(255 - value for value in (luma, cb, cr, black)))
    data = bytearray(encoded(stored, "JPEG", quality=100))
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    data[marker + 11] = 2
    red, green, blue = luma + 1.402 * 50, luma - 0.714136 * 50, luma
    expected = [255 - red, 255 - green, 255 - blue]
    assert np.abs(decode(bytes(data))[0, 0] - np.array(expected)).max() <= 2


def test_gray_of_16_bits_is_scaled() -> None:
    values = np.array([[0, 128, 129, 257 * 100, 65535]], np.uint16)  # 128.5 is half a level
    expected = gray([[0, 0, 1, 100, 255]])
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), form)), expected)
    big_endian = Image.frombytes("I;16B", (5, 1), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(decode(encoded(big_endian, "TIFF")), expected)
    portable = b"P5 5 1 65535\n" + values.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode(portable), expected)


def test_colour_of_16_bits() -> None:
    row = b"\0" + struct.pack(">6H", 0, 257 * 7, 65535, 257 * 200, 257, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
        for kind, body in (
            (b"IHDR", struct.pack(">LLBBBBB", 2, 1, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(row)),
            (b"IEND", b""),
        )
    )
    np.testing.assert_array_equal(decode(data), [[[0, 7, 255], [200, 1, 0]]])


def test_integers_of_32_bits() -> None:
    fits = Image.fromarray(np.array([[0, 257 * 9, 65535]], np.int32))
    np.testing.assert_array_equal(decode(encoded(fits, "TIFF")), gray([[0, 9, 255]]))
    wide = Image.fromarray(np.array([[-1_000_000, 0, 1_000_000]], np.int32))
    np.testing.assert_array_equal(decode(encoded(wide, "TIFF"))[0, :, 0], [0, 127, 255])


def test_one_bit() -> None:
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    for form in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(decode(encoded(image, form)), gray([[0, 255]]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.2, 1.0], [0, 51, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([-10.0, 0.0, 40.0], [0, 51, 255]),
        ([float("nan"), 0.2, float("inf")], [0, 51, 0]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    np.testing.assert_array_equal(decode(data), gray([expected]))


def test_floats_without_a_number_are_refused() -> None:
    data = encoded(Image.fromarray(np.full((1, 2), np.nan, np.float32)), "TIFF")
    with pytest.raises(DataError, match=r"^images/1.x: the picture has no finite value$"):
        decode(data)


def test_lab() -> None:
    # CIE L*a*b* (D50) of black, white and a mid grey, L* 0..100 stored as 0..255.
    values = np.array([[[0, 0, 0], [255, 0, 0], [128, 0, 0]]], np.uint8)
    decoded = decode(encoded(Image.frombytes("LAB", (3, 1), values.tobytes()), "TIFF"))
    # L* = 50.2: Y = ((50.2 + 16) / 116)^3 = 0.186, which sRGB's curve takes to 119.5.
    assert np.abs(decoded[0].astype(int) - [[0] * 3, [255] * 3, [119] * 3]).max() <= 2


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(form: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(decode(data), np.full((4, 4, 3), [255, 0, 0]))


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">L", 13)
        + body
        + struct.pack(">L", zlib.crc32(body))
        + struct.pack(">L", 1 << 30)
        + b"IDAT"
    )


def test_a_size_bomb_is_refused_by_its_header() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError) as caught:
        decode(png_header(30_000, 30_000))
    assert str(caught.value) == (
        "images/1.x: the picture has 30000 x 30000 = 900,000,000 pixels, and the limit is "
        "100,000,000: make it smaller, or leave it out"
    )
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_exact() -> None:
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    assert decode_image(data, name="x", max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(DataError, match="10 x 10 = 100 pixels, and the limit is 99"):
        decode_image(data, name="x", max_pixels=99)


def noise(height: int = 64, width: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_refused_with_their_name(form: str) -> None:
    data = encoded(noise(), form)
    for share in (0.5, 0.9):
        with pytest.raises(DataError, match=r"^images/1\.x: "):
            decode(data[: int(share * len(data))])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole(options: dict[str, object]) -> None:
    data = encoded(noise(), "JPEG", **options)
    for cut in (1, 2):
        np.testing.assert_array_equal(decode(data[:-cut]), decode(data))
    restart = data.rfind(b"\xff\xd1") if "restart_marker_blocks" in options else -40
    # Of a progressive file: whole scans, but not the last.
    scan = data.rfind(b"\xff\xda") if "progressive" in options else -41
    for damaged in (data[:-8], data[:restart], data[:scan]):
        with pytest.raises(DataError, match="truncated or damaged"):
            decode(damaged)
    with pytest.raises(DataError):  # strangers' files must be whole
        decode_image(data[:-2], name="x", formats=["JPEG"])


def test_every_byte_counts_in_the_message() -> None:
    data = encoded(noise(), "JPEG")
    with pytest.raises(DataError, match=r"the JPEG picture is truncated or damaged: .*replace"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"hello", "is not a picture"),
        (b"\0" * 1000, "is not a picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG drawing"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"%PDF-1.7", "PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"P6 0 4 255\n", "."),
        (png_header(0, 5), "."),
        (b"\xff\xd8\xff", "."),
    ],
)
def test_what_is_no_picture_is_called_by_name(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=rf"^images/1\.x: .*{words}"):
        decode(data)


SEEDS = [
    encoded(noise(9, 7), form)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "ICO")
]


@settings(deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_damage_gives_pixels_or_a_data_error(seed: bytes, data: st.DataObject) -> None:
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(seed) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_image(bytes(damaged), name="x", max_pixels=10_000)
    except DataError:
        return
    assert decoded.dtype == np.uint8 and decoded.ndim == 3 and decoded.shape[2] == 3


def test_decoding_and_preprocessing_need_no_torch() -> None:
    code = (
        "import sys, plait.modalities.image.decode, plait.modalities.image.preprocess, plait.modalities.image.preprocess_sources;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def reference(image: Image.Image) -> np.ndarray:
    """`to_rgb` of a whole picture at once, in wide numbers."""
    values = np.asarray(image)
    if image.mode in ("I", "F"):
        finite = np.isfinite(values)
        wide = values.astype(np.float64 if image.mode == "F" else np.int64)
        low, high = wide[finite].min(), wide[finite].max()
        if image.mode == "F":
            tops = [top for top in (1, 255) if low >= 0 and high <= top]
            low, high = (0, tops[0]) if tops else (low, high)
            scaled = np.rint((np.where(finite, wide, low) - low) / max(high - low, 1e-300) * 255)
            return gray(np.where(finite, scaled, 0).astype(np.uint8).tolist())
        fits = low >= 0 and high <= 65535
        values = wide if fits else (wide - low) * 65535 // max(1, high - low)
    if image.mode.startswith("I"):
        found = (values.astype(np.int64) * 255 + 32767) // 65535
        return gray(np.where(values == image.info.get("transparency"), 255, found).tolist())
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA")).astype(np.int64)
        color, alpha = rgba[..., :3], rgba[..., 3:]
        return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def image_of(mode: str) -> Image.Image:
    rng = np.random.default_rng(1)
    shape = (37, 11)
    if mode.startswith("I;16"):
        values = rng.integers(0, 65536, shape).astype("<u2" if mode == "I;16" else ">u2")
        image = Image.frombytes(mode, shape[::-1], values.tobytes())
        image.info["transparency"] = int(values[5, 5])
        return image
    if mode in ("I", "I wide"):
        most = 65536 if mode == "I" else 1 << 30
        return Image.fromarray(
            rng.integers(0 if mode == "I" else -most, most, shape, dtype=np.int32)
        )
    if mode in ("F", "F wide"):
        values = rng.uniform(0, 255, shape) if mode == "F" else rng.normal(size=shape) * 1e6
        values[3, 3:6] = np.nan, np.inf, -np.inf
        return Image.fromarray(values.astype(np.float32))
    image = Image.fromarray(rng.integers(0, 256, (*shape, 4), dtype=np.uint8))
    if mode in ("P", "P with alpha"):
        image = image.convert("RGB").quantize(50)
        image.info.update({"transparency": bytes(range(50))} if mode == "P with alpha" else {})
        return image
    if mode == "LA":
        return image.convert("LA")
    if mode == "PA":
        return image.convert("RGB").quantize(50).convert("PA")
    if mode in ("CMYK", "RGBA"):
        return Image.frombytes(mode, image.size, image.tobytes())
    if mode == "RGB with a colour":
        image = image.convert("RGB")
        image.info["transparency"] = image.getpixel((2, 3))
        return image
    return image.convert("RGB").convert(mode)


MODES = ("1", "L", "P", "P with alpha", "RGB", "RGB with a colour", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV",
         "I;16", "I;16B", "I", "I wide", "F", "F wide")  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_bands_give_what_the_whole_gives(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(mode)
    expected = reference(image)
    np.testing.assert_array_equal(to_rgb(image), expected)
    monkeypatch.setattr("plait.modalities.image.decode._BAND", 30)  # two rows at a time
    np.testing.assert_array_equal(to_rgb(image), expected)


@pytest.mark.parametrize(
    "mode", ["RGB", "RGBA", "LA", "PA", "P with alpha", "CMYK", "I;16", "I", "F"]
)
def test_memory_for_conversion(mode: str) -> None:
    image = image_of(mode).resize((1500, 1000), Image.Resampling.NEAREST)
    if mode == "P with alpha":
        image.info["transparency"] = bytes(range(50))
    pixels = image.width * image.height
    tracemalloc.start()
    try:
        to_rgb(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Three bytes are the result; wide numbers are there for a band alone.
    assert peak < 3 * pixels + 48 * (1 << 17)


@pytest.mark.parametrize("size", range(2, 12))
def test_a_frame_that_is_shorter_than_its_contents_is_damage(size: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = buffer.getvalue()
    place = data.index(b"\xff\xc0")
    short = data[: place + 2] + struct.pack(">H", size) + data[place + 4 : place + 2 + size]
    rest = data[data.index(b"\xff\xda") : -2]
    assert with_end(data[:-2]) is not None
    assert with_end(short + rest) is None
    assert with_end(short + b"\xff\xda\x00\x02" + b"\x00" * 4) is None
