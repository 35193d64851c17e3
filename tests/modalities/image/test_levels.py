"""Pictures of more than 8 bits a value: what their files state, and what a user does."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plait.core.errors import RecipeError
from plait.core.media import BytesRef
from plait.data.audit.audit import audit
from plait.modalities.image.clips import frames_of
from plait.modalities.image.decode import decode_image, decode_lines, decode_to_show, to_rgb
from plait.modalities.image.fast_decode import load_pixels
from plait.modalities.image.levels import Levels
from plait.modalities.image.preprocess import ImagePreprocess
from plait.retrieval.index.rows import small_jpeg
from plait.runtime.decoding import Job, decoded
from plait.runtime.pictures import pixels_of

KINDS = {1: 0, 3: 2, 4: 6}  # colour types of PNG by channels


def png(values: np.ndarray, significant: int | None = None) -> bytes:
    """A PNG of 16 bits by its specification, every row unfiltered; ``sBIT`` where it is given."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">LLBBBBB", width, height, 16, KINDS[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if significant is not None:
        parts.insert(1, (b"sBIT", bytes([significant] * channels)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
        for kind, body in parts
    )


def tiff(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    return buffer.getvalue()


def packed_tiff(values: list[int], width: int) -> bytes:
    """An uncompressed gray TIFF of 12 bits: two values in three bytes."""
    bits = "".join(f"{value:012b}" for value in values)
    pixels = int(bits, 2).to_bytes(len(bits) // 8, "big")
    height = len(values) // width
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, height), (279, len(pixels))]  # fmt: skip
    entries = b"".join(struct.pack("<HHLHH", tag, 3, 1, value, 0) for tag, value in tags)
    start = 8 + len(pixels)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<L", 0)
    return b"II*\0" + struct.pack("<L", start) + pixels + directory


def grays(data: bytes, **options: object) -> list[int]:
    found = decode_image(data, name="x", **options)
    assert (found == found[..., :1]).all()
    return found[0, :, 0].tolist()


# 255 v / 4095, rounded: 2048 gives 127.53, 16 gives 0.996, 8 gives 0.498.
SCAN = np.array([[0, 4095, 2048, 16, 8]], np.uint16)
SHOWN = [0, 255, 128, 1, 0]


def test_the_bits_that_a_png_states_are_its_range() -> None:
    assert grays(png(SCAN)) == [0, 16, 8, 0, 0]  # nothing is stated: 65535 is white
    assert grays(png(SCAN, 12)) == SHOWN
    assert grays(png(SCAN, 16)) == [0, 16, 8, 0, 0]


def test_a_png_whose_upper_bits_count_is_left_as_it_is() -> None:
    # Written by the book: 12 bits in the upper places, repeated in the lower ones.
    by_the_book = SCAN << 4 | SCAN >> 8
    assert grays(png(by_the_book, 12)) == SHOWN
    # 15 bits and nothing above the half: by the book it is a dark picture, as the lowest bit is empty.
    dark = np.array([[0, 32766, 16384]], np.uint16)
    assert grays(png(dark, 15)) == [0, 127, 64]
    assert grays(png(dark + np.uint16(1), 15)) == [0, 255, 128]  # bits that would be empty


def test_a_tiff_of_12_bits() -> None:
    assert grays(packed_tiff([0, 4095, 2048, 16], 4)) == SHOWN[:4]


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_12_bits(channels: int) -> None:
    values = np.stack([SCAN[0], SCAN[0] // 2, SCAN[0][::-1]], axis=-1)[None]
    # Of 2047, 1024, 8, 4 and of 4095 from behind.
    shown = np.stack([SHOWN, [0, 127, 64, 0, 0], [0, 1, 128, 255, 0]], axis=-1)
    if channels == 4:
        opaque = np.full((1, 5, 1), 65535, np.uint16)
        opaque[0, 4] = 0  # what is transparent is white
        values, shown[4] = np.concatenate([values, opaque], axis=-1), 255
    data = png(values)
    levels = Levels(window=(0, 4095))
    np.testing.assert_array_equal(decode_image(data, name="x", levels=levels)[0], shown)
    if channels == 3:
        np.testing.assert_array_equal(decode_image(png(values, 12), name="x")[0], shown)
    assert decode_image(data, name="x")[0, :4].max() == 15  # 4095 / 256


def test_a_window() -> None:
    # Below 100 black, above 300 white: 200 is in the middle, 127.5 rounds to even.
    values = np.array([[0, 100, 200, 201, 300, 9000]], np.uint16)
    levels = Levels(window=(100, 300))
    expected = [0, 0, 128, 129, 255, 255]
    assert grays(png(values), levels=levels) == expected
    assert grays(tiff(values), levels=levels) == expected
    assert grays(tiff(values.astype(np.float32)), levels=levels) == expected
    below = values.astype(np.int32) - 1000
    assert grays(tiff(below), levels=Levels(window=(-900, -700))) == expected


def test_percentiles() -> None:
    # Of 0 to 99 the tenth is 9, the ninetieth 89.
    values = np.arange(100, dtype=np.uint16)[::-1].reshape(10, 10)
    levels = Levels(percentiles=(10, 90))
    expected = np.clip(np.rint((values.astype(float) - 9) * 255 / 80), 0, 255)
    for data in (png(values), tiff(values.astype(np.float32)), tiff(values.astype(np.int32))):
        found = decode_image(data, name="x", levels=levels)[..., 0]
        np.testing.assert_array_equal(found, expected)
    alike = np.full((2, 2), 7, np.uint16)
    assert decode_image(png(alike), name="x", levels=levels).max() == 0


def test_pictures_of_8_bits_are_left_as_they_are() -> None:
    image = Image.fromarray(np.array([[[9, 99, 199], [3, 4, 5]]], np.uint8))
    for form in ("PNG", "TIFF", "BMP"):
        buffer = io.BytesIO()
        image.save(buffer, form)
        for levels in (Levels(window=(0, 4095)), Levels(percentiles=(1, 99))):
            found = decode_image(buffer.getvalue(), name="x", levels=levels)
            np.testing.assert_array_equal(found, np.asarray(image))


def test_bands_and_turned_pictures_have_one_range(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(60, dtype=np.uint16).reshape(12, 5) * 60
    levels = Levels(percentiles=(5, 95))
    whole = decode_image(png(values), name="x", levels=levels)
    monkeypatch.setattr("plait.modalities.image.decode._BAND", 10)  # two rows at a time
    np.testing.assert_array_equal(decode_image(png(values), name="x", levels=levels), whole)
    shape, lines = decode_lines(png(values), name="x", levels=levels)
    assert shape == (12, 5)
    np.testing.assert_array_equal(np.concatenate([lines(0, 7), lines(7, 12)]), whole)
    turned = np.ascontiguousarray(whole[:, ::-1].swapaxes(0, 1))
    upright = to_rgb(Image.fromarray(values), 8, levels=levels)  # stored turned by a quarter
    np.testing.assert_array_equal(upright, np.rot90(whole))
    assert turned.shape == upright.shape


def test_every_way_to_an_encoder_takes_them() -> None:
    values = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 65) % 4096
    levels = Levels(window=(0, 4095))
    plain = ImagePreprocess(size=8, resize="squash")
    toned = ImagePreprocess(size=8, resize="squash", levels=levels)
    expected = decode_image(png(values), name="x", levels=levels).transpose(2, 0, 1)
    assert expected.max() == 255
    np.testing.assert_array_equal(load_pixels([BytesRef(png(values), "x")], toned)[0], expected)
    np.testing.assert_array_equal(pixels_of([png(values)], toned)[0], expected)
    np.testing.assert_array_equal(pixels_of([Image.fromarray(values)], toned)[0], expected)
    in_process = decoded(Job("x", 10_000, 1.0, 1.0, toned.to_json()), png(values))
    np.testing.assert_array_equal(in_process, expected)
    whole = decoded(Job("x", 10_000, 1.0, 1.0, None, levels.to_json()), png(values))
    np.testing.assert_array_equal(whole, expected.transpose(1, 2, 0))
    assert pixels_of([png(values)], plain).max() <= 16


def test_settings_are_kept_and_older_ones_are_what_they_were() -> None:
    plain = ImagePreprocess(size=8)
    assert "levels" not in plain.to_json()
    for levels in (Levels(window=(0, 4095)), Levels(percentiles=(1, 99.5))):
        toned = ImagePreprocess(size=8, levels=levels)
        assert ImagePreprocess.from_json(toned.to_json()) == toned
        assert toned.pixels_fingerprint != plain.pixels_fingerprint
        assert toned.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "need one of window"),
        ({"window": [0, 1], "percentiles": [1, 99]}, "need one of window"),
        ({"window": [5, 5]}, "the lower first"),
        ({"window": [0, float("nan")]}, "the lower first"),
        ({"percentiles": [1, 101]}, "numbers from 0 to 100"),
        ({"percentiles": [1, 2, 3]}, "give two numbers"),
        ({"windw": [0, 1]}, "did you mean 'window'"),
    ],
)
def test_unfit_levels_are_refused(given: dict[str, list[float]], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Levels.from_json(given)


def test_frames_keep_their_16_bits() -> None:
    pages = [Image.fromarray(SCAN + np.uint16(number)) for number in range(2)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    frames = frames_of([BytesRef(buffer.getvalue(), "stack.tif")], 2)
    for number, frame in enumerate(frames):
        levels = Levels(window=(number, 4095 + number))
        assert grays(frame.read(), levels=levels) == SHOWN


def test_people_are_shown_what_a_dark_picture_has() -> None:
    dark, bright = png(SCAN), png(SCAN * np.uint16(16))
    assert decode_to_show(dark, name="x")[0, :, 0].tolist() == SHOWN
    np.testing.assert_array_equal(decode_to_show(bright, name="x"), decode_image(bright, name="x"))
    colour = np.stack([SCAN] * 3, axis=-1)
    assert decode_to_show(png(colour), name="x")[0, :, 1].tolist() == SHOWN
    small = Image.open(io.BytesIO(small_jpeg(dark, "x")))
    assert np.asarray(small).max() > 200


def test_the_audit_names_pictures_that_use_little_of_their_range(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def scan(top: int) -> np.ndarray:
        values = rng.integers(0, top, (8, 8), dtype=np.uint16)
        values.flat[:2] = 0, top
        return values

    files = {
        "scan": png(scan(4095)),
        "stated": png(scan(4095), 12),
        "full": png(scan(65535)),
        "colour": png(np.stack([scan(4095)] * 3, axis=-1)),
        "flat": png(np.full((8, 8), 7, np.uint16)),
        "middle": tiff(scan(1000) + np.uint16(32000)),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.{'png' if name != 'middle' else 'tif'}").write_bytes(data)
        (tmp_path / f"{name}.txt").write_text(f"a scan called {name} here")
    rows = [row for row in audit(tmp_path).rows if row.kind == "narrow-range"]
    told = {row.detail.split(".")[0]: row.detail for row in rows}
    assert told.keys() == {"scan", "colour", "middle"}
    assert "uses 6% of its range (0 to 4,095 of 0 to 65,535)" in told["scan"]
    assert "uses 2% of its range (32,000 to 33,000" in told["middle"]
    assert {row.severity for row in rows} == {"warning"}
