"""Folders of photographs that are no classes, and shards and texts that say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.data.planted import tar_file
from tests.modalities.image.test_forms import COLOURS, png

from plait.core.errors import DataError
from plait.data import inspect, open_dataset
from plait.data.audit.audit import audit


def tree(root: Path, folders: list[str]) -> Path:
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (9 * number, 0, 0)).save(root / folder / f"{number}.jpg")
    return root


@pytest.mark.parametrize(
    "folders",
    [
        ["2019", "2020"],
        ["2019-07", "2019-08"],
        ["2019-07-14 Paris", "2019-08-01 Rome"],
        ["20190714_Paris", "misc"],
        ["2019/07", "2019/12", "2020/01"],
        ["14.07.2019", "Wedding"],
        ["2019年7月", "2019年8月"],
        ["DCIM/100CANON", "DCIM/101CANON"],
        ["100APPLE", "102_PANA"],
        ["camera2", "2019"],
        ["IMG_0001", "IMG_0002"],
        ["images"],
        ["Screenshots", "Camera Uploads"],
        ["train/2019", "val/2019", "train/2020"],
    ],
)
def test_folders_that_are_no_classes(folders: list[str], tmp_path: Path) -> None:
    result = inspect(tree(tmp_path, folders))
    assert (result["format"], result["samples"], result["texts"]) == ("images", len(folders), 0)
    (note,) = [note for note in result["notes"] if note["kind"] == "no-label-folder"]
    assert "are no classes: the pictures have no texts" in note["message"]
    assert "no-label-folder" in {row.kind for row in audit(tmp_path, images=False).rows}


@pytest.mark.parametrize(
    "folders",
    [
        ["cat", "dog"],
        ["train/cat", "val/cat"],
        ["0", "7", "1999", "2019"],  # classes that are counted
        ["00001", "00002"],
        ["n01440764", "n01443537"],
        ["Audi TT 2011", "BMW X5 2007"],
        ["2012/cat", "2012/dog"],  # the year of the set, not of a picture
        ["airplane", "bird", "camel"],
        ["001.Black_footed_Albatross", "002.Laysan_Albatross"],
    ],
)
def test_folders_that_are_classes(folders: list[str], tmp_path: Path) -> None:
    dataset = open_dataset(tree(tmp_path, folders))
    assert dataset.format == "classfolder"
    labels = {sample.labels["label"] for sample in dataset}
    assert labels == {folder.rsplit("/", 1)[-1] for folder in folders}


def test_shards_without_texts_are_pictures(tmp_path: Path) -> None:
    shard = tar_file(tmp_path / "a.tar", [(f"{one}.PNG", png(one)) for one in COLOURS])
    result = inspect(shard)
    assert (result["samples"], result["texts"], result["skipped"]["count"]) == (2, 0, 0)
    assert "the shards hold pictures without texts" in {n["message"] for n in result["notes"]}


@pytest.mark.parametrize(
    ("members", "texts"),
    [
        ([("a.PNG", b""), ("a.TXT", b"one")], ("one",)),
        ([("a.png", b""), ("a.cls", b"cat")], ("cat",)),
        ([("a.png", b""), ("a.json", json.dumps({"caption": "one"}).encode())], ("one",)),
        ([("a.png", b""), ("a.JSON", json.dumps({"caption": "one"}).encode())], ("one",)),
        ([("a.png", b""), ("a.caption", b"one")], ("one",)),
        ([("./d.ir/a.png", b""), ("./d.ir/a.txt", b"one")], ("one",)),
        ([("a.b.png", b""), ("a.b.txt", b"one")], ("one",)),
        ([("a.png", b""), ("a.txt", b"")], None),
        ([("a.png", b""), ("a.cls", b"7")], None),
        ([("a.png", b""), ("a.json", b'{"width": 4}')], None),
    ],
)
def test_members_of_a_shard(
    members: list[tuple[str, bytes]], texts: tuple[str, ...] | None, tmp_path: Path
) -> None:
    shard = tar_file(tmp_path / "a.tar", [(name, data or png("red") if "png" in name.lower() else data)
                                          for name, data in members])  # fmt: skip
    if texts is not None:
        assert open_dataset(shard)[0].texts == texts
        return
    with pytest.raises(DataError, match="text"):
        open_dataset(shard)
    every = open_dataset(shard, every_picture=True)  # as an index takes them
    assert [(one.texts, one.image is not None) for one in every] == [((), True)]


@pytest.mark.parametrize("text", ["\ufe0f", "\ufe0e\u200d", "\U000e0101", "\u034f"])
def test_texts_of_variation_selectors_alone_are_empty(text: str, tmp_path: Path) -> None:
    tree(tmp_path, ["."])
    (tmp_path / "p.csv").write_text(f"image,title\n0.jpg,{text}\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2: the text is empty"):
        open_dataset(tmp_path)
    (tmp_path / "p.csv").write_text("image,title\n0.jpg,❤\ufe0f\n", encoding="utf-8")
    assert open_dataset(tmp_path)[0].texts == ("❤\ufe0f",)


@pytest.mark.parametrize(
    ("text", "none"),
    [("0.JPG", True), ("other_0001.png", True), ("???", True), ("无", True), ("(null)", True),
     ("n.a.", True), ("a dog on a.jpg", False), ("red", False), ("!", False), ("7", False)],
)  # fmt: skip
def test_words_that_are_no_captions(text: str, none: bool, tmp_path: Path) -> None:
    tree(tmp_path, [".", "."])
    (tmp_path / "p.csv").write_text(f"image,title\n0.jpg,{text}\n1.jpg,a dog\n", encoding="utf-8")
    kinds = {row.kind for row in audit(tmp_path, images=False).rows}
    assert ("no-caption" in kinds) == none
