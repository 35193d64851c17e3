"""The pixel cache keeps what it was given, whatever stops a writer and whoever writes beside."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plait.core.errors import DataError, UserError
from plait.core.media import BytesRef, FileRef, TarRef
from plait.modalities.image.fast_decode import load_pixels, read_pixels
from plait.modalities.image.pixel_cache import PixelCache, file_identity
from plait.modalities.image.preprocess import ImagePreprocess

SMALL = ImagePreprocess(4)


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (3, 4, 4), dtype=np.uint8)


def ref(number: int) -> BytesRef:
    return BytesRef(b"picture %d" % number, f"{number}.png")


def filled(folder: Path, count: int) -> PixelCache:
    cache = PixelCache(SMALL, folder)
    for number in range(count):
        cache.put(ref(number), pixels(number))
    return cache


def check(cache: PixelCache, numbers: range) -> None:
    for number in numbers:
        found = cache.get(ref(number))
        assert found is not None
        np.testing.assert_array_equal(found, pixels(number))


def test_what_was_put_is_got_at_once_and_after_reopening(tmp_path: Path) -> None:
    with filled(tmp_path, 5) as cache:
        check(cache, range(5))
        assert cache.get(ref(5)) is None and ref(4) in cache and ref(5) not in cache
        cache.put(ref(5), pixels(5))
        cache.put(ref(5), pixels(6))  # the first stays
        check(cache, range(6))
    again = PixelCache(SMALL, tmp_path)
    assert len(again) == 6
    check(again, range(6))


def test_other_preprocessing_has_another_place(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    assert len(PixelCache(ImagePreprocess(4, interpolation="bicubic"), tmp_path)) == 0
    normalised = ImagePreprocess(4, mean=(0.0, 0.0, 0.0))
    assert len(PixelCache(normalised, tmp_path)) == 3  # pixels do not depend on it


def test_a_reader_sees_what_another_adds(tmp_path: Path) -> None:
    reader, writer = PixelCache(SMALL, tmp_path), filled(tmp_path, 3)
    assert reader.get(ref(0)) is None
    reader.refresh()
    check(reader, range(3))
    writer.put(ref(3), pixels(3))
    reader.refresh()
    check(reader, range(4))


@pytest.mark.parametrize("cut", [1, 7, 19, 20, 21])
def test_a_torn_record_costs_that_record_alone(tmp_path: Path, cut: int) -> None:
    filled(tmp_path, 4).close()
    (records,) = tmp_path.glob("*/*.records")
    os.truncate(records, records.stat().st_size - cut)
    left = 3 if cut <= 20 else 2
    cache = PixelCache(SMALL, tmp_path)
    assert len(cache) == left
    check(cache, range(left))
    for number in range(4):
        cache.put(ref(number), pixels(number))
    check(PixelCache(SMALL, tmp_path), range(4))


def test_pixels_lost_with_the_machine_are_absent(tmp_path: Path) -> None:
    filled(tmp_path, 4).close()
    (data,) = tmp_path.glob("*/*.pixels")
    os.truncate(data, data.stat().st_size - 1)
    cache = PixelCache(SMALL, tmp_path)
    assert len(cache) == 3
    check(cache, range(3))


def test_damaged_pixels_are_absent_and_can_be_put_again(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    (data,) = tmp_path.glob("*/*.pixels")
    with data.open("r+b") as file:
        file.seek(48 + 5)
        byte = file.read(1)[0]
        file.seek(48 + 5)
        file.write(bytes([byte ^ 1]))
    cache = PixelCache(SMALL, tmp_path)
    assert cache.get(ref(1)) is None
    check(cache, range(0, 3, 2))
    cache.put(ref(1), pixels(1))
    check(cache, range(3))


WRITER = """
import sys, numpy as np
from plait.modalities.image.pixel_cache import PixelCache
from plait.modalities.image.preprocess import ImagePreprocess
from plait.core.media import BytesRef
cache = PixelCache(ImagePreprocess(4), sys.argv[1])
number = int(sys.argv[2])
print("ready", flush=True)
while number < int(sys.argv[3]):
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    cache.put(BytesRef(b"picture %d" % number, "x"), pixels)
    number += 1
    if number % 50 == 0:
        print(number, flush=True)
"""


def writer(folder: Path, start: int, stop: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(start), str(stop)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    both = [writer(tmp_path, 0, 300), writer(tmp_path, 150, 450)]
    assert [process.communicate()[0].startswith("ready") for process in both] == [True, True]
    cache = PixelCache(SMALL, tmp_path)
    assert len(cache) == 450
    check(cache, range(450))


def test_a_killed_writer_leaves_what_it_had_written(tmp_path: Path) -> None:
    process = writer(tmp_path, 0, 10_000_000)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    written = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = PixelCache(SMALL, tmp_path)
    assert len(cache) >= written
    check(cache, range(len(cache)))


def test_several_threads(tmp_path: Path) -> None:
    cache = PixelCache(SMALL, tmp_path)
    failures: list[Exception] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 60):
                cache.put(ref(number), pixels(number))
                check(cache, range(first, number + 1, 9))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 30, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    check(cache, range(120))


def test_identity_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before = file_identity(FileRef(path))
    assert before == file_identity(FileRef(path, "another name"))
    path.write_bytes(b"more")
    assert file_identity(FileRef(path)) != before
    assert file_identity(BytesRef(b"x", "1")) == file_identity(BytesRef(b"x", "2"))
    assert file_identity(BytesRef(b"x", "1")) != file_identity(BytesRef(b"y", "1"))
    with pytest.raises(DataError, match=r"b\.png: cannot be read"):
        file_identity(FileRef(tmp_path / "b.png", "b.png"))


def test_identity_within_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("1.png", "2.png"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    with tarfile.open(tmp_path / "a.tar") as tar:
        refs = [TarRef(tmp_path / "a.tar", m.name, m.offset_data, m.size) for m in tar]
    assert refs[0].read() == b"abc"
    assert file_identity(refs[0]) != file_identity(refs[1])


def test_pictures_are_decoded_once(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(path)
    cache = PixelCache(SMALL, tmp_path / "cache")
    first = load_pixels([FileRef(path)], SMALL, store=cache)
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)  # the same size and time: never read again
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_array_equal(read_pixels(FileRef(path), SMALL, store=cache), first[0])
    path.write_bytes(b"new content")
    with pytest.raises(DataError, match="not a picture"):
        read_pixels(FileRef(path), SMALL, store=cache)


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        PixelCache(SMALL, tmp_path).put(ref(0), np.zeros((3, 5, 4), np.uint8))


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    cache = filled(tmp_path, 1)
    assert cache._files is not None
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    cache._files.pixels = os.open(full, os.O_WRONLY)
    with pytest.raises(UserError, match=r"pixels cannot be kept: No space left.*make room"):
        cache.put(ref(1), pixels(1))
    cache.put(ref(1), pixels(1))  # goes on in another segment
    check(cache, range(2))
