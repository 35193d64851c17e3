"""Names of files as other programs, other systems and other computers write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from plait.core.errors import DataError
from plait.data import inspect, open_dataset
from plait.data.readers.spelling import local, others, tails


def table(folder: Path, names: list[str]) -> Path:
    lines = [f'"{name}",text {number}' for number, name in enumerate(names)]
    (folder / "pairs.csv").write_text("\n".join(["image,title", *lines]) + "\n")
    return folder


def picture(place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(place)
    return place


ENCODED = "are encoded, quoted or spaced otherwise than on the disk"
MOVED = "start from a folder of another computer"


@pytest.mark.parametrize(
    ("disk", "stated", "way"),
    [
        ("img/1.png", "./img/1.png", ""),
        ("img/1.png", "img\\1.png", ""),
        ("img/1.png", ".\\img\\1.png", ""),
        ("img/1.png", "img/1.png  ", ""),
        ("img/1.png", "file://{root}/img/1.png", ""),
        ("img/1.png", "file:{root}/img/1.png", ""),
        ("img/1.png", "FILE://localhost{root}/img/1.png", ""),
        ("a%20b/1.png", "a%20b/1.png", ""),  # which is the name on the disk
        ("my img/1.png", "my%20img/1.png", ENCODED),
        ("my img/1.png", "file://{root}/my%20img/1.png", ENCODED),
        ("图/1.png", "%E5%9B%BE/1.png", ENCODED),
        ("photos/my img/1.png", "my%20img/1.png", ENCODED),
        ("img/1.png", "'img/1.png'", ENCODED),
        ("img/1.png", "img /1.png", ENCODED),
        ("img/1.png", "img/1.png\u200b", ENCODED),
        ("img/1.png", "\ufeffimg/1.png", ENCODED),
        ("img/1.png", "C:\\Users\\me\\pairs\\img\\1.png", MOVED),
        ("img/1.png", "C:/Users/me/img/1.png", MOVED),
        ("img/1.png", "file:///C:/Users/my%20data/img/1.png", MOVED),
        ("img/1.png", "\\\\server\\share\\img\\1.png", MOVED),
        ("img/1.png", "/home/other/pairs/img/1.png", MOVED),
        ("img/1.png", "~/pairs/img/1.png", MOVED),
        ("img/1.png", "s3://bucket/img/1.png", MOVED),
        ("img/1.png", "pairs/data/img/1.png", MOVED),
        ("deep/img/1.png", "/kaggle/input/img/1.png", MOVED),
        ("1.png", "D:\\photos\\1.png", MOVED),
        ("1.png", "/home/other/1.png", MOVED),
    ],
)  # fmt: skip
def test_the_file_is_found_and_the_spelling_told(
    disk: str, stated: str, way: str, tmp_path: Path
) -> None:
    place = picture(tmp_path / disk)
    source = table(tmp_path, [stated.format(root=tmp_path)])
    (sample,) = open_dataset(source)
    assert sample.image is not None
    assert sample.image.path is not None
    assert sample.image.path.samefile(place)
    assert sample.id == "1"
    told = [note for note in inspect(source)["notes"] if note["kind"] == "respelled-name"]
    assert [note["count"] for note in told] == ([1] if way else [])
    assert all(f"1 names {way}, and were found all the same" in note["message"] for note in told)


def test_a_folder_in_nfd_within_a_path_of_another_computer(tmp_path: Path) -> None:
    picture(tmp_path / unicodedata.normalize("NFD", "Übung") / "1.png")
    source = table(tmp_path, [unicodedata.normalize("NFC", "/home/x/Übung/1.png")])
    assert len(open_dataset(source)) == 1


@pytest.mark.parametrize(
    ("disk", "stated", "hint"),
    [
        ("img/1.PNG", "img/1.png", "img/1.PNG"),
        ("Img/1.png", "img/1.png", "Img/1.png"),
        ("Img/Sub/1.png", "IMG/sub/1.jpg", "Img/Sub/1.png"),
        ("img/1.png", "img/1", "img/1.png"),
        ("img/1.HEIC", "img/1.jpg", "img/1.HEIC"),
        ("1.jpeg", "1.jpg", "1.jpeg"),
        ("1.png", "images/1.png", "1.png"),
    ],
)
def test_a_near_file_is_named(disk: str, stated: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / disk).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / disk).write_bytes(b"x")
    with pytest.raises(DataError, match=f"there is no file {stated} .*; did you mean '{hint}'"):
        open_dataset(table(tmp_path, [stated]))


def test_bare_names_of_two_folders_are_not_taken_for_each_other(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        picture(tmp_path / name)
    result = inspect(table(tmp_path, ["/cam/a/1.png", "/cam/a/2.png", "/cam/b/1.png"]))
    assert result["samples"] == 2
    assert result["skipped"]["kinds"] == {"outside-file": 1}


def test_a_bare_name_that_two_folders_have_is_not_guessed(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "1.png")
    with pytest.raises(DataError, match="1 row names a file outside"):
        open_dataset(table(tmp_path, ["/x/1.png"]))


@pytest.mark.parametrize(
    "stated", ["../secret/1.png", "%2e%2e/secret/1.png", "a/../../secret/1.png"]
)
def test_no_spelling_leads_out_of_the_folder(stated: str, tmp_path: Path) -> None:
    picture(tmp_path / "secret" / "1.png")
    (tmp_path / "data" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"outside the folder|there is no file"):
        open_dataset(table(tmp_path / "data", [stated]))


def test_the_parts_of_spelling() -> None:
    assert local("file:///a/b") == "/a/b"
    assert local("files/a.png") == "files/a.png"
    assert list(others("a b.png")) == []
    assert list(others("a%ffb.png")) == []  # no UTF-8: the name on the disk may be so
    assert list(others("a%00b.png")) == []
    assert list(tails("C:\\a\\1.png")) == [("C:", "a/1.png"), ("C:/a", "1.png")]
    assert list(tails("a/../1.png")) == []
    assert list(tails("/".join(["x"] * 100))) == []
