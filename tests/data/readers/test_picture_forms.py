"""Pictures by their forms: HEIC with its extra, and what is said of those that are not decoded."""

from __future__ import annotations

import base64
import io
import signal
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plait.core.errors import DataError
from plait.data import inspect, open_dataset
from plait.data.audit.audit import audit
from plait.data.readers import dicom as dicom_reader
from plait.modalities.image import dicom, forms, heif
from plait.modalities.image.decode import decode_image, decode_lines
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.structure import SAFE_FORMATS, kind_of
from plait.runtime.pictures import pixels_of

# Drawn for this test: 32 x 16, left half (220, 30, 30), right half (40, 70, 220). The box irot and the
# tag 274 of EXIF both say that it is to be turned by a quarter clockwise, as telephones write it.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAcdtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    "AAAAADRpbG9jAAAAAERAAAIAAQAAAAAB6wABAAAAAAAAALgAAgAAAAACowABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVp"
    "bmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABBmlwcnAAAADlaXBjbwAAAHVo"
    "dmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAA"
    "AwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAA"
    "AABAAAAAQAAAAChjbGFwAAAAIAAAAAEAAAAQAAAAAf///+AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAACWlyb3QD"
    "AAAAGWlwbWEAAAAAAAAAAQABBoECAwWEhgAAABppcmVmAAAAAAAAAA5jZHNjAAIAAQABAAAA5G1kYXQAAAC0KAGvBjIZ/K2A"
    "iSDwv6jx///x2/2X7oLaTqvNstL+313//wp27fXCP6A87/0UWND7u+X+1TYs4fnTqHc9QuYTpQ15gXxdiNlegnVxXKQBm2qn"
    "Pu38KStuQhGcE0BOhvujxnd8vlOjEt5kIoN65QGnfr7xmSjoPPu8mi35J51VdvklM5P9wB6zkV2AANiZ6vHfLYacv8Q0UrvT"
    "MmZHRcALv7/fLxjA15sTJpvNgzwG8NIZGalAAAAABkV4aWYAAE1NACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA"
)
RED, BLUE = (220, 30, 30), (40, 70, 220)


@pytest.fixture
def no_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where no package reads HEIC."""
    yield from without(monkeypatch, "heif")


def without(monkeypatch: pytest.MonkeyPatch, library: str) -> Iterator[None]:
    if library == "heif":
        for module in (forms, heif):
            monkeypatch.setattr(module, "heif_package", lambda: None)
    elif library == "pydicom":
        for module in (forms, dicom, dicom_reader):
            monkeypatch.setattr(module, "has_pydicom", lambda: False)
    else:
        known = forms.features.check
        monkeypatch.setattr(forms.features, "check", lambda name: name != library and known(name))
    caches = (forms.decoded, forms._undecoded)
    for cache in caches:
        cache.cache_clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


def heic(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEIC)
    return path


def test_heic_is_read_and_turned_once() -> None:
    array = decode_image(HEIC, name="x")
    assert array.shape == (32, 16, 3)  # turned: what was left is above
    for rows, colour in ((array[:13], RED), (array[19:], BLUE)):
        assert np.abs(rows.astype(int) - colour).max() <= 6
    shape, lines = decode_lines(HEIC, name="x")
    assert shape == (32, 16)
    np.testing.assert_array_equal(lines(0, 32), array)


def test_heic_in_folders_tables_and_shards(tmp_path: Path) -> None:
    heic(tmp_path / "folder" / "IMG_1.HEIC")
    (tmp_path / "folder" / "IMG_1.txt").write_text("a red square above a blue one")
    heic(tmp_path / "table" / "a.heic")
    (tmp_path / "table" / "pairs.csv").write_text("image,caption\na.heic,two squares\n")
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, data in (("1.heic", HEIC), ("1.txt", b"two squares")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    for source in ("folder", "table", "a.tar"):
        (sample,) = open_dataset(tmp_path / source)
        assert sample.image is not None
        assert decode_image(sample.image.read(), name="x").shape == (32, 16, 3)
        report = audit(tmp_path / source)
        assert [row for row in report.rows if row.severity == "error"] == []


def test_heic_as_a_query_and_for_an_encoder(tmp_path: Path) -> None:
    preprocess = ImagePreprocess(size=16, resize="squash")
    path = heic(tmp_path / "query.HEIC")
    (found,) = pixels_of([path], preprocess)
    assert found.shape == (3, 16, 16)
    assert np.abs(found[:, 3, 8].astype(int) - RED).max() <= 6
    assert np.abs(found[:, 12, 8].astype(int) - BLUE).max() <= 6


def test_a_raw_file_beside_the_jpeg_of_the_same_name(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "IMG_1.JPG")
    (tmp_path / "IMG_1.txt").write_text("a black square")
    (tmp_path / "IMG_1.CR2").write_bytes(b"II*\0")
    (sample,) = open_dataset(tmp_path)
    assert sample.image is not None
    assert (sample.image.name, sample.texts) == ("IMG_1.JPG", ("a black square",))
    (note,) = (n for n in inspect(tmp_path)["notes"] if n["kind"] == "undecoded-picture")
    assert note["message"].startswith("IMG_1.CR2 is not read: camera raw pictures")


@pytest.mark.usefixtures("no_heif")
def test_heic_without_its_extra_is_counted_and_called_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "1.jpg")
    for name in ("1.heic", "2.HEIC", "3.heif", "4.HIF"):
        heic(tmp_path / name)
    (note,) = (n for n in inspect(tmp_path)["notes"] if n["kind"] == "undecoded-picture")
    assert note["count"] == 4
    assert note["examples"] == ["1.heic", "2.HEIC", "3.heif"]
    assert "[heif]" in note["message"] and "JPEG" in note["message"]
    with pytest.raises(DataError, match=r"is a HEIC picture: pip install .*heif.* or convert it"):
        decode_image(HEIC, name="x")


def test_heic_of_strangers_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="HEIC picture, which cannot be read here"):
        decode_image(HEIC, name="x", formats=SAFE_FORMATS)


def test_half_a_heic_is_refused() -> None:
    for size in (100, 500, len(HEIC) // 2 + 100):
        with pytest.raises(DataError, match=r"damaged: (its header|[A-Z])"):
            decode_image(HEIC[:size], name="x")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A package in place of those that read HEIC, which runs ``code`` when it opens a picture."""
    text = f"""
import os, time
from PIL import Image
def opened(file, name=""):
    {code}
def register_heif_opener(**options):
    Image.register_open("HEIF", opened)
"""
    (folder / "stand_in_heif.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(heif, "heif_package", lambda: "stand_in_heif")
    heif.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.abort()", "makes its decoder fail"),
        ("time.sleep(60)", "takes longer than 0.5 s"),
        ("raise MemoryError", "needs too much memory"),
    ],
)
def test_a_picture_that_ends_its_decoder_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    with monkeypatch.context() as changed:
        stand_in(tmp_path, changed, code)
        changed.setattr(heif, "SECONDS", 0.5 if "sleep" in code else 60.0)
        with pytest.raises(DataError, match=words):
            decode_image(HEIC, name="x")
        heif.close()
    assert decode_image(HEIC, name="x").shape == (32, 16, 3)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_decoder_that_died_between_two_pictures_is_replaced(how: signal.Signals) -> None:
    """And Ctrl-C, which a terminal sends to it as well, does not end it."""
    heif.close()
    decode_image(HEIC, name="x")
    (worker,) = heif._idle
    worker.send_signal(how)
    if how == signal.SIGKILL:
        worker.wait(timeout=60)
    assert decode_image(HEIC, name="x").shape == (32, 16, 3)
    assert (heif._idle == [worker]) == (how == signal.SIGINT)


def test_pictures_are_decoded_in_several_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        shapes = list(pool.map(lambda _: decode_image(HEIC, name="x").shape, range(12)))
    assert set(shapes) == {(32, 16, 3)}


def changed(data: bytes, first: int, number: int) -> bytes:
    """The file with a few bytes from ``first`` on overwritten, alike for the same number."""
    rng = np.random.default_rng(number)
    found = bytearray(data)
    for place in rng.integers(first, len(data), rng.integers(1, 7)):
        found[place] = rng.choice([0, 1, 255, rng.integers(256)])
    return bytes(found)


def test_damage_gives_pixels_or_a_data_error() -> None:
    refused = 0
    for number in range(60):
        try:
            array = decode_image(changed(HEIC, 12, number), name="x", max_pixels=100_000)
        except DataError:
            refused += 1
        else:
            assert array.dtype == np.uint8 and array.shape[2] == 3
    assert 0 < refused < 60


def test_a_heic_that_states_too_many_pixels_is_refused_before_it_is_opened() -> None:
    box = HEIC.index(b"ispe") + 8
    size = (60_000).to_bytes(4, "big")
    with pytest.raises(DataError, match=r"60000 x 60000 = 3,600,000,000 pixels"):
        decode_image(HEIC[:box] + 2 * size + HEIC[box + 8 :], name="x")


def test_pictures_of_any_codec_are_told_by_their_brands() -> None:
    head = b"\0\0\0\x1cftypmif1\0\0\0\0mif1"
    assert kind_of(head + b"heicmiaf") == "HEIC"
    assert kind_of(head + b"avifmiaf") == "AVIF"
    assert kind_of(b"\0\0\0\x18ftypqt  \0\0\0\0qt  ") is None


@pytest.mark.parametrize(
    ("library", "ending", "form"), [("avif", "avif", "AVIF"), ("jpg_2000", "jp2", "JPEG 2000")]
)
def test_what_pillow_lacks_is_counted_and_what_it_has_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, ending: str, form: str
) -> None:
    Image.new("RGB", (16, 16), RED).save(tmp_path / f"1.{ending}")
    Image.new("RGB", (16, 16), BLUE).save(tmp_path / "2.png")
    assert {sample.id for sample in open_dataset(tmp_path)} == {"1", "2"}
    for _ in without(monkeypatch, library):
        assert {sample.id for sample in open_dataset(tmp_path)} == {"2"}
        (note,) = (n for n in inspect(tmp_path)["notes"] if n["kind"] == "undecoded-picture")
        assert note["message"].startswith(f"1.{ending} is not read: {form} pictures")


def tiff_of_a_camera() -> bytes:
    """A TIFF as DNG and NEF begin: a small copy, with the place of the sensor's values in tag 330."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), RED).save(buffer, "TIFF", tiffinfo={254: 1, 330: 8})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jxl", b"\xff\x0a\x00\x00", "JPEG XL"),
        ("b.jxl", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        ("a.svg", b"<svg/>", "SVG"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0" + bytes(20), "camera raw"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "camera raw"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201", "camera raw"),
        ("a.nef", tiff_of_a_camera(), "camera raw"),
        ("a.dng", tiff_of_a_camera(), "camera raw"),
        ("a.psd", b"8BPS\0\x01", "Photoshop"),
        ("a.ico", b"\0\0\1\0", "icon"),
    ],
)
def test_other_forms_are_counted_and_called_by_name(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    (tmp_path / name).write_bytes(data)
    (note,) = (n for n in inspect(tmp_path)["notes"] if n["kind"] == "undecoded-picture")
    assert (note["count"], note["examples"]) == (1, [name])
    assert words in note["message"]
    if words not in ("Photoshop", "icon"):  # a table may name it all the same
        with pytest.raises(DataError, match=words):
            decode_image(data, name="x")


def test_a_shard_of_pictures_that_are_not_decoded_says_so(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, data in (("1.cr2", b"II*\0"), ("1.txt", b"a tree")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    with pytest.raises(DataError, match=r"the sample's picture is cr2, of camera raw pictures"):
        open_dataset(tmp_path / "a.tar")
