"""Pictures that would hold a thread or eat the memory end with their own process."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plait.core.errors import DataError
from plait.modalities.image.decode import decode_image
from plait.modalities.image.preprocess import ImagePreprocess
from plait.runtime.resize import preprocess_exactly
from plait.serving.base.settings import Limits
from plait.serving.queue import decoders
from plait.serving.queue.decoders import Decoders, is_plain

PREPROCESS = ImagePreprocess(size=16)


def encoded(height: int, width: int, form: str = "JPEG", **options: object) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).resize((width, height)).save(buffer, form, **options)
    return buffer.getvalue()


SMALL = encoded(64, 80, progressive=True)


def slow() -> bytes:
    """A progressive JPEG of 90 scans of three million pixels: about a second."""
    data = encoded(1504, 2000, progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * 80 + b"\xff\xd9"


@pytest.fixture(scope="module")
def running() -> Iterator[Decoders]:
    made = Decoders(Limits(pixels=4_000_000))
    made.start()
    yield made
    made.close()


def pid(of: Decoders) -> int:
    (decoder,) = of._idle
    return decoder.pid


def gone(number: int) -> bool:
    for _ in range(500):
        try:
            if "Z" in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]:
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    "data",
    [SMALL, encoded(64, 80, "GIF"), encoded(64, 80, "TIFF"), encoded(64, 80, "AVIF")],
    ids=["progressive", "gif", "tiff", "avif"],
)
def test_a_process_gives_what_a_thread_gives(running: Decoders, data: bytes) -> None:
    assert not running.is_quick(data)
    whole = decode_image(data, name="x")
    np.testing.assert_array_equal(running.picture(data), whole)
    expected = preprocess_exactly(whole, PREPROCESS)
    np.testing.assert_array_equal(running.pixels(data, PREPROCESS), expected)


def test_a_fault_of_the_picture_leaves_its_decoder_alive(running: Decoders) -> None:
    running.pixels(SMALL, PREPROCESS)
    before = pid(running)
    with pytest.raises(DataError, match=r"^input\[3\]: the JPEG picture is truncated"):
        running.pixels(SMALL[: len(SMALL) // 2], PREPROCESS, "input[3]")
    huge = encoded(64, 80, "GIF")
    huge = huge[:6] + b"\xff" * 4 + huge[10:]
    with pytest.raises(DataError, match=r"65535 x 65535 = .* the limit is 4,000,000"):
        running.picture(huge)
    assert pid(running) == before


def test_a_picture_that_takes_too_long_ends_its_decoder_alone() -> None:
    made = Decoders(Limits(picture_seconds=0.3))
    try:
        made.pixels(SMALL, PREPROCESS)
        before = pid(made)
        with pytest.raises(DataError, match=r"takes longer than 0\.3 s: save it anew"):
            made.pixels(slow(), PREPROCESS)
        assert gone(before)
        assert made.pixels(SMALL, PREPROCESS).shape == (3, 16, 16)
        assert pid(made) != before
    finally:
        made.close()


def test_a_decoder_that_stands_still_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_WALL", 0.5)
    made = Decoders(Limits(picture_seconds=2.0))
    try:
        made.pixels(SMALL, PREPROCESS)
        before = pid(made)
        os.kill(before, signal.SIGSTOP)
        with pytest.raises(DataError, match="takes longer"):
            made.pixels(SMALL, PREPROCESS)
        assert gone(before)
    finally:
        made.close()


def test_large_pictures_are_decoded_one_at_a_time() -> None:
    room, inside, may_go = decoders._Room(100), [], threading.Event()

    def decode(pixels: int) -> None:
        with room.held(pixels):
            inside.append(pixels)
            may_go.wait(10)

    threads = [threading.Thread(target=decode, args=(pixels,)) for pixels in (60, 60, 40, 500)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    assert inside == [60, 40]
    may_go.set()
    for thread in threads:
        thread.join(10)
    assert sorted(inside) == [40, 60, 60, 500]


def test_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_PIXEL_BYTES", 0)
    monkeypatch.setattr(decoders, "_SPARE_BYTES", 8 << 20)
    made = Decoders(Limits())
    try:
        assert made.pixels(SMALL, PREPROCESS).shape == (3, 16, 16)
        before = pid(made)
        with pytest.raises(DataError, match="more memory than its size allows"):
            made.pixels(encoded(1504, 2000, progressive=True), PREPROCESS)
        assert pid(made) == before
    finally:
        made.close()


def test_what_is_killed_from_outside_costs_no_picture(running: Decoders) -> None:
    running.pixels(SMALL, PREPROCESS)
    os.kill(pid(running), signal.SIGKILL)
    assert running.pixels(SMALL, PREPROCESS).shape == (3, 16, 16)
    nursery, before = running._nursery, pid(running)
    assert nursery is not None
    nursery._process.kill()
    assert gone(before)  # the kernel ends it with the process that forked it
    assert running.pixels(SMALL, PREPROCESS).shape == (3, 16, 16)


def test_nothing_is_left_after_the_end() -> None:
    made = Decoders(Limits())
    made.pixels(SMALL, PREPROCESS)
    nursery, last = made._nursery, pid(made)
    assert nursery is not None
    made.close()
    assert gone(last) and gone(nursery._process.pid)


def test_plain_pictures_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Decoders(Limits())
    monkeypatch.setattr(made, "_elsewhere", None)
    for form in ("JPEG", "PNG", "WEBP"):
        data = encoded(64, 80, form)
        np.testing.assert_array_equal(made.picture(data), decode_image(data, name="x"))
    assert made._nursery is None
    assert is_plain(encoded(64, 80), 64 * 80) and not is_plain(encoded(64, 80), 64 * 80 - 1)
    assert not is_plain(SMALL)


def test_without_processes_pictures_are_decoded_here(caplog: pytest.LogCaptureFixture) -> None:
    made = Decoders(Limits(), processes=False)
    with caplog.at_level("WARNING"):
        made.start()
    assert "cannot limit the memory and time" in caplog.text
    assert made.is_quick(SMALL)
    assert made.picture(SMALL).shape == (64, 80, 3)
