from __future__ import annotations

from pathlib import Path

import pytest
from tests.data import planted

from plait.core.errors import DataError
from plait.data.open.open import open_dataset


def captions(root: Path, lines: str, names: list[str]) -> Path:
    planted.pictures(root / "Images", names)
    path = root / "captions.txt"
    path.write_text("image,caption\n" + lines, newline="")
    return path


def test_commas_and_quotes(tmp_path: Path) -> None:
    lines = (
        "1.jpg,A dog, a cat , and more .\n"
        '1.jpg,"A ""big"" dog, quoted"\n'
        '1.jpg,"Stop", he said, "now"\n'
        '"a,b.jpg",comma in a quoted name\n'
        "c,d.jpg,comma in a bare name\r\n"
        '1.jpg,"two\nlines"\n'
        "1.jpg,1.jpg, is a name\n"
        '1.jpg,an inch is 1"\n'
    )
    dataset = open_dataset(captions(tmp_path, lines, ["1.jpg", "a,b.jpg", "c,d.jpg"]))
    assert {sample.id: sample.texts for sample in dataset} == {
        "1": (
            "A dog, a cat , and more .",
            'A "big" dog, quoted',
            '"Stop", he said, "now"',
            "two\nlines",
            "1.jpg, is a name",
            'an inch is 1"',
        ),
        "a,b": ("comma in a quoted name",),
        "c,d": ("comma in a bare name",),
    }


def test_an_open_quote_takes_one_line(tmp_path: Path) -> None:
    lines = '1.jpg,"never closed\n2.jpg,next\n'
    dataset = open_dataset(captions(tmp_path, lines, ["1.jpg", "2.jpg"]))
    assert [sample.texts for sample in dataset] == [('"never closed',), ("next",)]


def test_faults(tmp_path: Path) -> None:
    path = captions(tmp_path, "", ["1.jpg"])
    path.write_bytes(
        b"image,caption\n1.jpg,good\ngone.jpg,text\n1.jpg,\nno name here\n1.jpg,caf\xe9\n"
    )
    dataset = open_dataset(path, on_bad_row="skip")
    assert [(bad.kind, bad.row) for bad in dataset.skipped] == [
        ("missing-file", 3),
        ("empty-text", 4),
        ("bad-csv", 5),
        ("bad-encoding", 6),
    ]
    with pytest.raises(DataError, match=r"captions.txt, row 3: there is no file gone.jpg"):
        open_dataset(path)


def test_split_lists(tmp_path: Path) -> None:
    root = planted.flickr8k_token(tmp_path / "f")
    names = planted.NAMES
    parts = {"train": names[:20], "dev": names[20:23], "test": names[23:25]}
    for split, part in parts.items():
        text = "\n".join(part) + "\n"
        (root / "Flickr8k_text" / f"Flickr_8k.{split}Images.txt").write_text(text)
    dataset = open_dataset(root)
    assert dataset.split_counts == {"train": 21, "validation": 3, "test": 2}  # one unlisted
    assert dataset.split("dev").ids == [name.removesuffix(".jpg") for name in names[20:23]]
    assert len(dataset) == len(names)
    assert any("lemmatised" in note for note in dataset.notes)


def test_a_line_without_number(tmp_path: Path) -> None:
    root = planted.flickr8k_token(tmp_path / "f")
    path = root / "Flickr8k_text" / "Flickr8k.token.txt"
    path.write_text(path.read_text() + "2258277193_586949ec62.jpg.1#0\tpeople waiting\nnothing\n")
    dataset = open_dataset(root, on_bad_row="skip")
    assert [(bad.kind, bad.row) for bad in dataset.skipped] == [
        ("missing-file", 131),
        ("bad-csv", 132),
    ]
