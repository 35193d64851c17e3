"""What a path is taken for, and what is said when it is nothing."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from tests.data import planted

from plait.core.errors import DataError
from plait.data.open.open import open_dataset, stream
from plait.data.readers import detect


def fails(source: str | Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        open_dataset(source)
    assert caught.value.exit_code == 2


def test_nothing_there(tmp_path: Path) -> None:
    fails("openmojy", "did you mean 'openmoji'")
    fails(tmp_path / "gone", "no file, folder or built-in data set")
    fails(tmp_path, "empty folder")
    fails(str(tmp_path / "x-{00..03}.tar"), "4 of 4 shards are missing")
    fails(str(tmp_path / "*.tar"), "no file matches")


def test_not_readable(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x", "y")
    fails(tmp_path / "a.zip", "unpack it first")
    picture = planted.pictures(tmp_path / "p", ["1.jpg"]) / "1.jpg"
    fails(picture, "is one picture")
    (tmp_path / "notes.md").write_text("hello")
    fails(tmp_path / "notes.md", "nothing that plait reads")
    (tmp_path / "broken.json").write_text('{"images": [')
    fails(tmp_path / "broken.json", "no valid JSON")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    fails(tmp_path / "broken.parquet", "no readable Parquet")


def test_several_sets_in_a_folder(tmp_path: Path) -> None:
    planted.karpathy(tmp_path)
    planted.tar_file(tmp_path / "x.tar", [("1.jpg", planted.jpeg(1)), ("1.txt", b"a")])
    fails(tmp_path, r"several data sets: .*\(karpathy\), .*\(webdataset\)")
    assert open_dataset(tmp_path / "x.tar").format == "webdataset"


def test_several_tables(tmp_path: Path) -> None:
    planted.pictures(tmp_path, ["1.jpg"])
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("image,text,x\n1.jpg,a,b\n")
    fails(tmp_path, "several tables: a.csv, b.csv: name one")


def test_mapping_where_there_are_no_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be mapped in format coco"):
        open_dataset(planted.coco(tmp_path / "c"), columns={"text": "caption"})
    flickr = planted.flickr8k_csv_quoted(tmp_path / "f")
    dataset = open_dataset(flickr, columns={"text": "caption"})
    assert (dataset.format, len(dataset)) == ("table", 26)


def test_large_json_is_told_without_parsing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "_PARSED", 0)
    for form in ("coco", "karpathy", "llava"):
        write, name = planted.FORMS[form]
        assert open_dataset(write(tmp_path / form)).format == name


def test_objects_beside_captions_are_ignored(tmp_path: Path) -> None:
    root = planted.coco(tmp_path / "c")
    objects = {"images": [], "annotations": [{"id": 1, "image_id": 1, "segmentation": []}]}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(objects))
    assert open_dataset(root).format == "coco"


def test_brace_patterns(tmp_path: Path) -> None:
    for number in range(8, 11):
        members = [(f"{number}.png", planted.jpeg(number)), (f"{number}.txt", b"a text")]
        planted.tar_file(tmp_path / f"s-{number:02d}.tar", members)
    assert open_dataset(str(tmp_path / "s-{08..10}.tar")).ids == ["8", "9", "10"]
    assert open_dataset(str(tmp_path / "s-{08,10}.tar")).ids == ["8", "10"]
    assert open_dataset(str(tmp_path / "s-0*.tar")).ids == ["8", "9"]
    fails(str(tmp_path / "s-{08..11}.tar"), r"s-11.tar: 1 of 4 shards are missing")


def test_stream_gives_rows_one_by_one(tmp_path: Path) -> None:
    root = planted.webdataset_json(tmp_path / "w")
    whole = open_dataset(root)
    streamed = list(stream(root))
    assert [(one.id, one.texts) for one in streamed] == [(one.id, one.texts) for one in whole]
    bad = tmp_path / "bad.csv"
    bad.write_text("image,text,x\ngone.jpg,a,x\n")
    assert list(stream(bad, on_bad_row="skip")) == []
    with pytest.raises(DataError, match="row 2"):
        list(stream(bad))


def test_relative_names_do_not_leave_open_files(tmp_path: Path) -> None:
    """A picture read twice is the same, and no handle stays open (warnings are errors)."""
    [first, *_] = open_dataset(planted.webdataset_lines(tmp_path / "w"))
    assert first.image is not None
    assert first.image.read() == first.image.read() == planted.jpeg(0)
    assert io.BytesIO(first.image.read()).read(2) == b"\xff\xd8"
