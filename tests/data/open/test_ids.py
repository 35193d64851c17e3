"""Ids: the shortest tail of a path that no other has."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.data import planted

from plait.data.open.open import open_dataset
from plait.data.readers.assemble import short_ids

PART = st.text("ab1._é", min_size=1, max_size=3).filter(lambda part: part.strip("."))
PATHS = st.lists(
    st.tuples(st.lists(PART, max_size=2), PART, st.sampled_from([".jpg", ".png", ""])).map(
        lambda one: "/".join([*one[0], one[1]]) + one[2]
    ),
    unique_by=lambda path: unicodedata.normalize("NFC", path),
    max_size=12,
)


def test_examples() -> None:
    assert short_ids(["Images/1000.jpg"]) == ["1000"]
    assert short_ids(["cats/1.jpg", "dogs/1.jpg", "dogs/2.jpg"]) == ["cats/1", "dogs/1", "2"]
    assert short_ids(["1.jpg", "a/1.jpg"]) == ["1", "a/1"]
    assert short_ids(["1.jpg", "1.png"]) == ["1.jpg", "1.png"]
    assert short_ids(["a/b/1.jpg", "c/b/1.jpg", "c/d/1.jpg"]) == ["a/b/1", "c/b/1", "d/1"]
    assert short_ids(["holiday.v2.jpg", "no ending", "x.backup"]) == [
        "holiday.v2",
        "no ending",
        "x.backup",
    ]
    assert short_ids(["a\\b\\1.JPG"]) == ["1"]
    assert short_ids(["", "1.jpg", ""]) == ["", "1", ""]


def test_accents_compare_equal_however_they_are_stored() -> None:
    assert short_ids([unicodedata.normalize("NFD", "café.jpg")]) == short_ids(["café.jpg"])


@given(PATHS)
def test_different_paths_have_different_ids(paths: list[str]) -> None:
    ids = short_ids(paths)
    assert len(set(ids)) == len(set(paths))


@given(PATHS, st.sampled_from(["", "root/", "/abs/data/"]))
def test_neither_order_nor_where_paths_start_matters(paths: list[str], prefix: str) -> None:
    plain = dict(zip(paths, short_ids(paths), strict=True))
    moved = short_ids([prefix + path for path in reversed(paths)])
    assert moved == [plain[path] for path in reversed(paths)]


def test_adding_another_name_moves_nobody() -> None:
    before = short_ids(["a/1.jpg", "a/2.jpg"])
    assert short_ids(["a/1.jpg", "a/2.jpg", "b/3.jpg"])[:2] == before


def test_explicit_ids(tmp_path: Path) -> None:
    planted.pictures(tmp_path, ["1.jpg", "2.jpg"])
    table = tmp_path / "pairs.csv"
    table.write_text("image,text,id,sample_id\n1.jpg,a,7,x\n2.jpg,b,8,y\n1.jpg,c,9,x\n")
    assert open_dataset(table).ids == ["x", "y"]
    table.write_text("image,text,number\n1.jpg,a,7\n2.jpg,b,8\n")
    assert open_dataset(table).ids == ["1", "2"]
    assert open_dataset(table, columns={"id": "number"}).ids == ["7", "8"]


def test_one_id_for_two_pictures_is_a_bad_row(tmp_path: Path) -> None:
    planted.pictures(tmp_path, ["1.jpg", "2.jpg"])
    table = tmp_path / "pairs.csv"
    table.write_text("image,text,sample_id\n1.jpg,a,x\n2.jpg,b,x\n")
    dataset = open_dataset(table, on_bad_row="skip")
    assert dataset.ids == ["x"]
    assert [(bad.kind, bad.row) for bad in dataset.skipped] == [("id-clash", 3)]


def test_same_name_with_other_content_in_a_table_is_another_sample(tmp_path: Path) -> None:
    """datasets' push_to_hub stores bare names, so that folders of origin are lost."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"image": {"bytes": planted.jpeg(number), "path": "1.jpg"}, "text": str(number)}
        for number in (0, 1, 0)
    ]
    pq.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "a-0.parquet")
    pq.write_table(pa.Table.from_pylist(rows[2:]), tmp_path / "a-1.parquet")
    dataset = open_dataset(tmp_path)
    assert [sample.texts for sample in dataset] == [("0", "0"), ("1",)]
    assert all(id.startswith("1~") for id in dataset.ids)
    assert len(set(dataset.ids)) == 2
