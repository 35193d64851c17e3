"""Pairs tables and image folders, with every fault named by file and row."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.data import planted

from plait.core.errors import DataError
from plait.data.open.open import inspect, open_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    planted.pictures(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    return tmp_path


def skipped(path: Path) -> list[tuple[str, int | str | None]]:
    dataset = open_dataset(path, on_bad_row="skip")
    first = dataset.skipped[0]
    with pytest.raises(DataError) as caught:
        open_dataset(path)
    assert caught.value.row == first.row
    assert str(caught.value).startswith(f"{first.path}, row {first.row}: ")
    return [(bad.kind, bad.row) for bad in dataset.skipped]


def test_columns_are_guessed_by_name(root: Path) -> None:
    table = root / "pairs.csv"
    for header in ("image,caption", "text,filename", "Photo,Title", "img_path,description"):
        names = header.split(",")
        row = ["1.jpg", "a dog"] if names[0] != "text" else ["a dog", "1.jpg"]
        table.write_text(f"{header},x\n{','.join(row)},y\n")
        [sample] = open_dataset(table)
        assert (sample.id, sample.texts, dict(sample.meta)) == ("1", ("a dog",), {"x": "y"})


def test_columns_are_guessed_by_content(root: Path) -> None:
    table = root / "pairs.csv"
    table.write_text("Datei;Beschreibung\n1.jpg;ein Hund\n2.jpg;eine Katze, rot\n")
    dataset = open_dataset(table)
    assert [sample.texts for sample in dataset] == [("ein Hund",), ("eine Katze, rot",)]


def test_mapped_columns(root: Path) -> None:
    table = root / "pairs.csv"
    table.write_text("image,a,b,c\n1.jpg,one,two,g\n")
    [sample] = open_dataset(table, columns={"text": "a,b", "group": "c"})
    assert (sample.texts, sample.group) == (("one", "two"), "g")
    with pytest.raises(DataError, match=r"no column 'imge' for image; did you mean 'image'"):
        open_dataset(table, columns={"image": "imge", "text": "a"})
    with pytest.raises(DataError, match=r"unknown role 'imag'.*did you mean 'image'"):
        open_dataset(table, columns={"imag": "image"})
    with pytest.raises(DataError, match=r"no column names the texts .*'image', 'a', 'b', 'c'"):
        open_dataset(table)


def test_misspelt_column_is_guessed_at(root: Path) -> None:
    table = root / "pairs.csv"
    table.write_text("image,captoin,x\n1.jpg,one,2\n")
    with pytest.raises(DataError, match=r"did you mean 'caption'.*text=COLUMN"):
        open_dataset(table)


def test_columns_in_languages(root: Path) -> None:
    table = root / "pairs.csv"
    table.write_text("image,text_en,text_zh\n1.jpg,dog,狗\n2.jpg,cat,\n")
    one, two = open_dataset(table)
    assert (one.texts, one.languages) == (("dog", "狗"), ("en", "zh"))
    assert (two.texts, two.languages) == (("cat",), ("en",))
    assert inspect(table)["languages"] == {"en": 2, "zh": 1}


def test_language_column(root: Path) -> None:
    table = root / "pairs.jsonl"
    rows = [
        {"image": "1.jpg", "text": ["dog", "狗"], "language": ["en", "zh"]},
        {"image": "2.jpg", "text": ["cat", "kitty"], "language": "en"},
        {"image": "3.jpg", "text": ["cat", "kitty"], "language": ["en", "en", "zh"]},
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    dataset = open_dataset(table, on_bad_row="skip")
    assert [sample.languages for sample in dataset] == [("en", "zh"), ("en", "en")]
    assert dataset.skipped[0].problem == "2 texts, but 3 languages"


def test_lists_in_cells(root: Path) -> None:
    table = root / "pairs.csv"
    cells = ['"[""a"", ""b""]"', "\"['c', 'd']\"", "[laughs]"]
    lines = [f"{number}.jpg,{cell},x" for number, cell in enumerate(cells, 1)]
    table.write_text("image,text,source\n" + "\n".join(lines))
    texts = [sample.texts for sample in open_dataset(table)]
    assert texts == [("a", "b"), ("c", "d"), ("[laughs]",)]


def test_rows_of_a_picture_merge(root: Path) -> None:
    table = root / "pairs.csv"
    table.write_text("image,text,label\n1.jpg,a,x\n2.jpg,b,y\n./1.jpg,c,x\n")
    one, two = open_dataset(table)
    assert (one.texts, two.texts) == (("a", "c"), ("b",))
    assert one.labels == {"label": "x"}
    assert one.where == f"{table}, row 2"


def test_further_media(root: Path) -> None:
    (root / "bark.wav").write_bytes(b"RIFF")
    table = root / "pairs.jsonl"
    rows = [
        {"image": "1.jpg", "audio": "bark.wav", "text": "a dog barks"},
        {"audio": "bark.wav", "text": "a bark alone"},
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    both, sound = open_dataset(table)
    assert both.media["audio"].read() == b"RIFF"
    assert sound.image is None
    assert (sound.id, sound.media["audio"].name) == ("bark", "bark.wav")


def test_faults_of_rows(root: Path) -> None:
    table = root / "pairs.csv"
    rows = [
        b"image,text,label",
        b"1.jpg,good,x",
        b"gone.jpg,text,x",  # 3
        b"2.jpg,   ,x",  # 4
        b"2.jpg,caf\xe9,x",  # 5: Latin-1
        b"2.jpg,one,two,three",  # 6
        b",text,x",  # 7
        b"https://example.org/1.jpg,text,x",  # 8
        b'2.jpg,"two\nlines",x',  # 9 and 10
        b"3.jpg,,x",  # 11
    ]
    table.write_bytes(b"\r\n".join(rows) + b"\r\n")
    assert skipped(table) == [
        ("missing-file", 3),
        ("empty-text", 4),
        ("bad-encoding", 5),
        ("bad-csv", 6),
        ("missing-file", 7),
        ("remote-file", 8),
        ("empty-text", 11),
    ]
    dataset = open_dataset(table, on_bad_row="skip")
    assert [sample.texts for sample in dataset] == [("good",), ("two\nlines",)]
    found = inspect(table)["skipped"]
    assert found["count"] == 7
    assert found["kinds"]["missing-file"] == 2
    assert "byte 0xe9" in found["first"][2]["problem"]


def test_open_quote_does_not_swallow_rows_unseen(root: Path) -> None:
    table = root / "pairs.csv"
    table.write_text('image,text,x\n1.jpg,"a dog,1\n2.jpg,b,1\n3.jpg,c,1\n')
    with pytest.raises(DataError, match=r"row 2: is not well-formed CSV.*read to line 4.*quotes"):
        open_dataset(table)


def test_faults_of_json_lines(root: Path) -> None:
    table = root / "pairs.jsonl"
    lines = [
        b'{"image": "1.jpg", "text": "good"}',
        b'{"image": "1.jpg", "text": ',
        b"[1, 2]",
        b'{"image": "2.jpg", "text": 5}',
        b'{"image": "2.jpg", "text": ["a", null]}',
        b'{"image": "2.jpg", "text": "caf\xe9"}',
        b'{"image": 3, "text": "a"}',
        b'{"text": "a"}',
        b"",
        b'{"image": "2.jpg", "text": "\\ud83d half"}',
        b'{"image": "2.jpg", "text": []}',
        b'{"image": "2.jpg", "text": "a", "split": "holdout"}',
    ]
    table.write_bytes(b"\n".join(lines))
    assert skipped(table) == [
        ("bad-json", 2),
        ("wrong-type", 3),
        ("wrong-type", 4),
        ("empty-text", 5),
        ("bad-encoding", 6),
        ("wrong-type", 7),
        ("missing-file", 8),
        ("bad-encoding", 10),
        ("empty-text", 11),
        ("bad-split", 12),
    ]


def test_bad_first_line_of_json_lines(root: Path) -> None:
    table = root / "pairs.jsonl"
    table.write_text('{"image": "1.jpg",\n{"image": "2.jpg", "text": "b"}\n')
    assert skipped(table) == [("bad-json", 1)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(root: Path, encoding: str) -> None:
    table = root / "pairs.csv"
    table.write_text("image,text,x\n1.jpg,狗,1\n", encoding=encoding)
    assert open_dataset(table)[0].texts == ("狗",)


def test_no_rows(root: Path) -> None:
    table = root / "pairs.csv"
    table.write_text("image,text\n")
    with pytest.raises(DataError, match="holds no rows"):
        open_dataset(table)
    table.write_text("image,text\nx.jpg,a\n")
    with pytest.raises(DataError, match=r"no sample could be read; the first bad row: .*, row 2"):
        open_dataset(table, on_bad_row="skip")
    table.write_text("image,image\nx.jpg,a\n")
    with pytest.raises(DataError, match="names 'image' twice"):
        open_dataset(table)


def test_a_name_in_two_folders_is_not_guessed(tmp_path: Path) -> None:
    planted.pictures(tmp_path / "a", ["1.jpg", "2.jpg"])
    planted.pictures(tmp_path / "b", ["1.jpg"])
    table = tmp_path / "pairs.csv"
    table.write_text("image,text,x\n1.jpg,t,x\n2.jpg,u,x\n")
    dataset = open_dataset(table, on_bad_row="skip")
    assert [bad.kind for bad in dataset.skipped] == ["ambiguous-file"]
    assert dataset.ids == ["2"]
    assert any("files found in" in note for note in dataset.notes)


def test_metadata_beside_and_above(tmp_path: Path) -> None:
    for split, name in (("train", "1.jpg"), ("test", "2.jpg")):
        planted.pictures(tmp_path / split, [name, f"orphan-{name}"])
        (tmp_path / split / "metadata.csv").write_text(f"file_name,text\n{name},hello\n")
    dataset = open_dataset(tmp_path)
    assert dataset.format == "imagefolder"
    assert dict(zip(dataset.ids, dataset.splits, strict=True)) == {"1": "train", "2": "test"}
    assert any(note.startswith("2 pictures have no row") for note in dataset.notes)


def test_class_folders(tmp_path: Path) -> None:
    for number, name in enumerate(["train/polar_bear", "train/cat", "val/cat", "test/cat"]):
        planted.pictures(tmp_path / name, [f"{number}.jpg"])
    dataset = open_dataset(tmp_path)
    assert dataset.format == "classfolder"
    found = {s.id: (s.texts, s.labels["label"], s.split) for s in dataset}
    assert found == {
        "0": (("polar bear",), "polar_bear", "train"),
        "1": (("cat",), "cat", "train"),
        "2": (("cat",), "cat", "validation"),
        "3": (("cat",), "cat", "test"),
    }
    planted.pictures(tmp_path, ["stray.jpg"])
    with pytest.raises(DataError, match=r"stray.jpg is in no class folder"):
        open_dataset(tmp_path)


def test_bare_pictures(root: Path) -> None:
    dataset = open_dataset(root)
    assert (dataset.format, dataset.texts, dataset.ids) == ("images", 0, ["1", "2", "3"])


def test_file_names_that_are_no_utf8(tmp_path: Path) -> None:
    """Archives from elsewhere hold them; ids and messages must still print."""
    names = [b"caf\xe9.jpg", b"caf\xe8.jpg"]
    (tmp_path / "cat").mkdir()
    for number, name in enumerate(names):
        Path(tmp_path / "cat" / os.fsdecode(name)).write_bytes(planted.jpeg(number))
    dataset = open_dataset(tmp_path)
    assert len(set(dataset.ids)) == 2
    assert all(id.startswith("caf\N{REPLACEMENT CHARACTER}~") for id in dataset.ids)
    assert len(dataset.split("all").fingerprint) == 16
    assert {sample.image.read() for sample in dataset if sample.image} == {
        planted.jpeg(0),
        planted.jpeg(1),
    }


def test_sidecars(root: Path) -> None:
    for number in (1, 2):
        (root / f"{number}.txt").write_text(f"picture {number}, with a comma\n")
    dataset = open_dataset(root, on_bad_row="skip")
    assert dataset.format == "sidecar"
    assert [sample.texts for sample in dataset] == [
        ("picture 1, with a comma",),
        ("picture 2, with a comma",),
    ]
    assert dataset.skipped[0].row == "3.jpg"
