"""The fast path against its slow twin: `decode_image` and `ImagePreprocess`."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plait.core.errors import DataError
from plait.core.media import BytesRef, FileRef
from plait.modalities.image import fast_decode
from plait.modalities.image.decode import decode_image
from plait.modalities.image.fast_decode import (
    decode_fast,
    iter_pixels,
    load_pixels,
    pixel_batches,
    preprocess_fast,
)
from plait.modalities.image.preprocess import ImagePreprocess


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.integers(-10, 11, (height, width, 3))
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray | Image.Image, form: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


COLOURS = photograph(61, 83)
VARIANTS = {
    "4:2:0": jpeg(COLOURS),
    "4:2:2": jpeg(COLOURS, subsampling="4:2:2"),
    "4:4:4": jpeg(COLOURS, subsampling="4:4:4"),
    "progressive": jpeg(COLOURS, progressive=True),
    "low quality": jpeg(COLOURS, quality=5),
    "restart markers": jpeg(COLOURS, restart_marker_blocks=2),
    "stored as RGB": jpeg(COLOURS, keep_rgb=True),
    "turned": jpeg(COLOURS, exif=turned()),
    "gray": jpeg(Image.fromarray(COLOURS).convert("L")),
    "CMYK": jpeg(Image.fromarray(COLOURS).convert("CMYK")),
    "several pictures": jpeg(
        COLOURS, "MPO", save_all=True, append_images=[Image.new("RGB", (20, 20))]
    ),
    "one pixel": jpeg(COLOURS[:1, :1]),
    "PNG": jpeg(COLOURS, "PNG"),
    "WebP": jpeg(COLOURS, "WEBP"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoded_pixels_equal_pillows(variant: str) -> None:
    data = VARIANTS[variant]
    np.testing.assert_array_equal(decode_fast(data, name="x"), decode_image(data, name="x"))


def test_plain_jpegs_do_take_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_decode, "decode_image", None)
    for variant in ("4:2:0", "progressive", "turned", "several pictures"):
        decode_fast(VARIANTS[variant], name="x")


def test_without_torchvisions_decoder_pillow_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_decode, "_jpeg_decoder", lambda: None)
    decoded = decode_fast(VARIANTS["4:2:0"], name="x")
    np.testing.assert_array_equal(decoded, decode_image(VARIANTS["4:2:0"], name="x"))


@settings(deadline=None)
@given(st.sampled_from(["4:2:0", "4:4:4", "progressive", "restart markers"]), st.data())
def test_damaged_files_meet_the_same_fate(variant: str, data: st.DataObject) -> None:
    damaged = bytearray(VARIANTS[variant])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    outcomes = []
    for decode in (decode_image, decode_fast):
        try:
            outcomes.append(decode(bytes(damaged), name="x", max_pixels=100_000))
        except DataError as error:
            outcomes.append(str(error))
    slow, fast = outcomes
    if isinstance(slow, str) or isinstance(fast, str):
        assert isinstance(slow, str) and slow == fast
    else:
        np.testing.assert_array_equal(fast, slow)


@pytest.mark.parametrize(
    ("interpolation", "levels", "beyond_one"), [("bilinear", 1, 0.0), ("bicubic", 2, 1e-4)]
)
def test_resized_pixels_equal_pillows_up_to_rounding(
    interpolation: str, levels: int, beyond_one: float
) -> None:
    total = beyond = 0
    for height, width in [(375, 500), (500, 375), (120, 160), (30, 40), (224, 301), (640, 100)]:
        for resize in ("shortest", "squash", "pad"):
            preprocess = ImagePreprocess(
                (112, 112), resize, crop_fraction=0.875, interpolation=interpolation
            )  # type: ignore[arg-type]
            array = photograph(height, width)
            difference = np.abs(preprocess(array).astype(int) - preprocess_fast(array, preprocess))
            assert difference.max() <= levels, (height, width, resize)
            total, beyond = total + difference.size, beyond + int((difference > 1).sum())
    assert beyond <= beyond_one * total


@pytest.mark.parametrize("interpolation", ["nearest", "lanczos", "box"])
def test_other_filters_are_pillows(interpolation: str) -> None:
    preprocess = ImagePreprocess(32, interpolation=interpolation)  # type: ignore[arg-type]
    np.testing.assert_array_equal(preprocess_fast(COLOURS, preprocess), preprocess(COLOURS))


def test_a_picture_of_the_right_size_is_untouched() -> None:
    array = photograph(32, 32)
    result = preprocess_fast(array, ImagePreprocess(32))
    np.testing.assert_array_equal(result, array.transpose(2, 0, 1))


SMALL = ImagePreprocess(8)


def numbered(number: int) -> BytesRef:
    return BytesRef(jpeg(np.full((9, 9, 3), number, np.uint8), "PNG"), f"{number}.png")


def test_pictures_come_in_order() -> None:
    found = [
        int(pixels[0, 0, 0]) for pixels in iter_pixels(map(numbered, range(50)), SMALL, ahead=7)
    ]
    assert found == list(range(50))


def test_never_more_than_ahead_is_taken() -> None:
    taken = 0

    def refs():
        nonlocal taken
        for number in range(40):
            taken += 1
            yield numbered(number)

    for consumed, _ in enumerate(iter_pixels(refs(), SMALL, ahead=5), start=1):
        assert taken <= consumed + 5


def test_decoding_goes_on_while_the_consumer_works() -> None:
    running = threading.Event()

    class Slow:
        name, path, size = "slow", None, 1

        def read(self) -> bytes:
            running.set()
            return numbered(3).data

    pictures = iter_pixels([numbered(1), numbered(2), Slow()], SMALL, threads=1, ahead=3)
    next(pictures)
    assert running.wait(10)  # the third is read though only the first was asked for
    pictures.close()


def test_an_error_names_the_file_and_ends_the_threads() -> None:
    before = threading.active_count()
    bad = BytesRef(b"nothing", "images/bad.jpg")
    with pytest.raises(DataError, match=r"^images/bad\.jpg: is not a picture"):
        list(iter_pixels([numbered(1), bad, numbered(2)], SMALL))
    assert threading.active_count() == before


def test_closing_early_ends_the_threads() -> None:
    before = threading.active_count()
    pictures = iter_pixels(map(numbered, range(200)), SMALL)
    next(pictures)
    pictures.close()
    assert threading.active_count() == before


def test_bad_pictures_are_reported_in_order_and_leave_a_gap(tmp_path: Path) -> None:
    missing = FileRef(tmp_path / "gone.jpg")
    refs = [numbered(5), BytesRef(b"x", "bad"), numbered(6), missing]
    reports: list[tuple[int, str]] = []

    def report(position: int, error: DataError) -> None:
        reports.append((position, str(error)))

    found = list(iter_pixels(refs, SMALL, on_error=report))
    assert [None if pixels is None else int(pixels[0, 0, 0]) for pixels in found] == [
        5,
        None,
        6,
        None,
    ]
    assert [position for position, _ in reports] == [1, 3]
    assert "gone.jpg: cannot be read" in reports[1][1]
    assert load_pixels(refs, SMALL, on_error=report)[:, 0, 0, 0].tolist() == [5, 6]
    batches = list(pixel_batches([*refs, numbered(7)], SMALL, batch_size=2, on_error=report))
    assert [positions for positions, _ in batches] == [[0, 2], [4]]
    assert [pixels[:, 0, 0, 0].tolist() for _, pixels in batches] == [[5, 6], [7]]


def test_no_pictures() -> None:
    assert load_pixels([], SMALL).shape == (0, 3, 8, 8)
    assert list(pixel_batches([], SMALL, batch_size=4)) == []


def test_two_threads_decode_at_once() -> None:
    # Two readers that each wait for the other can only end when both run.
    meeting = threading.Barrier(2, timeout=20)

    class Meets:
        name, path, size = "meets", None, 1

        def read(self) -> bytes:
            meeting.wait()
            return numbered(1).data

    started = time.monotonic()
    assert len(list(iter_pixels([Meets(), Meets()], SMALL, threads=2))) == 2
    assert time.monotonic() - started < 20
