"""WebDataset shards, and the tar index beside tarfile."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import planted

from plait.core.errors import DataError
from plait.data.open.open import open_dataset
from plait.data.readers import tar

NAME = st.text("ab/é.", min_size=1, max_size=160).filter(
    lambda name: name.strip("/.") and "//" not in name and name[0] != "/" and name[-1] != "/"
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(NAME, st.binary(max_size=1100)), max_size=5),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_index_equals_tarfile(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], kind: int
) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    with tarfile.open(path, "w", format=kind) as file:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            try:
                file.addfile(info, io.BytesIO(data))
            except ValueError:  # ustar cannot hold every long name
                continue
    with tarfile.open(path) as file:
        expected = [
            (one.name, one.offset_data, one.size) for one in file.getmembers() if one.isfile()
        ]
    assert list(tar.members(path)) == expected


def one(path: Path, members: list[tuple[str, bytes]]) -> Path:
    return planted.tar_file(path, members)


def text_of(path: Path) -> dict[str, tuple[str, ...]]:
    return {sample.id: sample.texts for sample in open_dataset(path)}


def test_truncated_shard(tmp_path: Path) -> None:
    members = [
        member
        for number in range(3)
        for member in ((f"{number}.jpg", planted.jpeg(number)), (f"{number}.txt", b"a text"))
    ]
    path = one(tmp_path / "x.tar", members)
    whole = path.read_bytes()
    last = list(tar.members(path))[-2]
    path.write_bytes(whole[: last[1] + 100])
    with pytest.raises(DataError, match=r"x.tar: the shard cannot be read to its end .*inside 2"):
        open_dataset(path)
    dataset = open_dataset(path, on_bad_row="skip")
    assert dataset.ids == ["0", "1"]
    assert [bad.kind for bad in dataset.skipped] == ["bad-tar"]
    path.write_bytes(whole[: last[1] - 512 - 510])  # inside the text of sample 1
    dataset = open_dataset(path, on_bad_row="skip")
    assert dataset.ids == ["0"]
    assert {(bad.kind, bad.row) for bad in dataset.skipped} == {
        ("bad-tar", None),
        ("empty-text", "1"),
    }
    damaged = bytearray(whole)
    damaged[last[1] - 512 + 5] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"header at byte \d+ is damaged"):
        open_dataset(path)


def test_webdataset_reads_the_same(tmp_path: Path) -> None:
    """The library of the format's author, on the same shard."""
    from webdataset.tariterators import tar_file_iterator

    path = next(planted.webdataset_json(tmp_path / "w").glob("*000000.tar"))
    with path.open("rb") as file:
        theirs = {entry["fname"]: entry["data"] for entry in tar_file_iterator(file)}
    ours = open_dataset(path)
    assert len(ours) * 2 == len(theirs)
    for sample in ours:
        assert sample.image is not None
        assert theirs[sample.image.name.split("!")[1]] == sample.image.read()
        assert json.loads(theirs[f"{sample.id}.json"])["captions"] == list(sample.texts)


def test_fields(tmp_path: Path) -> None:
    entry = {"caption": "ignored, the .txt wins", "url": "u", "split": "val", "group": "g"}
    path = one(
        tmp_path / "x.tar",
        [
            ("a/1.webp", planted.jpeg(1)),
            ("a/1.txt", b"ein Hund\n"),
            ("a/1.json", json.dumps(entry).encode()),
            ("a/1.wav", b"RIFF"),
            ("a/1.seg.png", planted.jpeg(2)),
            ("2.jpg", planted.jpeg(2)),
            ("2.json", b'["one", "two"]'),
            ("3.jpg", planted.jpeg(3)),
            ("3.cls", b"tabby cat"),
        ],
    )
    first, second, third = open_dataset(path)
    assert (first.id, first.texts, first.split, first.group) == (
        "1", ("ein Hund",), "validation", "g",
    )  # fmt: skip
    assert first.media["audio"].read() == b"RIFF"
    assert first.meta == {"caption": entry["caption"], "url": "u"}
    assert first.image is not None
    assert first.image.read() == planted.jpeg(1)
    assert second.texts == ("one", "two")
    assert (third.texts, third.labels) == (("tabby cat",), {"label": "tabby cat"})


def test_faults(tmp_path: Path) -> None:
    path = one(
        tmp_path / "x.tar",
        [
            ("0.jpg", planted.jpeg(0)),
            ("0.txt", b"good"),
            ("1.jpg", planted.jpeg(1)),
            ("2.txt", b"no picture"),
            ("3.jpg", planted.jpeg(3)),
            ("3.txt", b"caf\xe9"),
            ("4.jpg", planted.jpeg(4)),
            ("4.json", b"{"),
            ("5.jpg", planted.jpeg(5)),
            ("5.png", planted.jpeg(5)),
            ("5.txt", b"which one?"),
            ("6.jpg", planted.jpeg(6)),
            ("6.cls", b"3"),
            ("7.jpg", planted.jpeg(7)),
            ("7.json", b"5"),
            ("8.jpg", planted.jpeg(8)),
            ("8.txt", b" \n"),
        ],
    )
    dataset = open_dataset(path, on_bad_row="skip")
    assert dataset.ids == ["0"]
    assert {(bad.row, bad.kind) for bad in dataset.skipped} == {
        ("1", "empty-text"),
        ("2", "missing-file"),
        ("3", "bad-encoding"),
        ("4", "bad-json"),
        ("5", "several-pictures"),
        ("6", "empty-text"),
        ("7", "wrong-type"),
        ("8", "empty-text"),
    }


def test_lines_are_texts_only_when_all_agree(tmp_path: Path) -> None:
    def shard(*texts: bytes) -> Path:
        members = []
        for number, text in enumerate(texts):
            members += [(f"{number}.jpg", planted.jpeg(number)), (f"{number}.txt", text)]
        return one(tmp_path / "x.tar", members)

    assert text_of(shard(b"a\nb\n", b"c\nd")) == {"0": ("a", "b"), "1": ("c", "d")}
    assert text_of(shard(b"a\nb\n", b"c\nd\ne")) == {"0": ("a\nb",), "1": ("c\nd\ne",)}
    assert text_of(shard(b"a\n", b"c\n")) == {"0": ("a",), "1": ("c",)}


def test_keys_that_repeat(tmp_path: Path) -> None:
    """In a shard: the same picture merges, another one does not; in other shards they are apart."""
    same = [
        ("0.jpg", planted.jpeg(0)),
        ("0.txt", b"a"),
        ("0.jpg", planted.jpeg(0)),
        ("0.txt", b"b"),
    ]
    one(tmp_path / "s-0.tar", [*same, ("0.jpg", planted.jpeg(9)), ("0.txt", b"c")])
    one(tmp_path / "s-1.tar", [("0.jpg", planted.jpeg(1)), ("0.txt", b"d"), ("1.jpg", b"x"), ("1.txt", b"e")])  # fmt: skip
    dataset = open_dataset(tmp_path)
    assert sorted(sample.texts for sample in dataset) == [("a", "b"), ("c",), ("d",), ("e",)]
    assert len(set(dataset.ids)) == 4
    assert {"1", "s-1/0"} <= set(dataset.ids)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [("latin-1", ["Größe", "Straße", "b"]), ("gbk", ["红色的鸟", "蓝色的鸟", "b"])],
)
def test_names_in_other_encodings_stay_apart(
    encoding: str, names: list[str], tmp_path: Path
) -> None:
    with tarfile.open(
        tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding=encoding
    ) as file:
        for number, name in enumerate(names):
            parts = [(".jpg", planted.jpeg(number)), (".txt", f"a {number}".encode())]
            for ending, data in parts:
                member = tarfile.TarInfo(name + ending)
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    dataset = open_dataset(tmp_path / "x.tar")
    assert {sample.id: sample.texts for sample in dataset} == {
        name: (f"a {number}",) for number, name in enumerate(names)
    }
