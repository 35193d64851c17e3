from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data import planted

from plait.core.errors import DataError
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.base.splits import split_in_name, split_of, splits_of_names
from plait.data.open.open import open_dataset


def samples(*stated: str | None, group: str | None = None) -> PairDataset:
    every = [
        Sample(str(number), "here", texts=("t",), split=split, group=group)
        for number, split in enumerate(stated)
    ]
    return PairDataset(every, "made")


def test_shares_are_80_10_10() -> None:
    counts = Counter(split_of(f"picture {number}") for number in range(20_000))
    # 20,000 draws: standard deviations are 57 and 42
    assert abs(counts["train"] - 16_000) < 250
    assert abs(counts["validation"] - 2_000) < 200
    assert abs(counts["test"] - 2_000) < 200


def test_known_hashes() -> None:
    """SHA-256 of 'abc' starts with ba7816bf: 0.728 of the range; of 'a' with ca978112: 0.791."""
    assert split_of("abc") == "train"
    assert split_of("a") == "train"
    # of '4': 4b22 ..., of '1': 6b86 ..., of '2': d473 (0.830), of '3': 4e07, of '5': ef2d (0.934)
    assert split_of("2") == "validation"
    assert split_of("5") == "test"


def test_a_group_shares_a_split() -> None:
    dataset = samples(*[None] * 30, group="hand")
    assert len(set(dataset.splits)) == 1
    assert dataset.group_numbers().tolist() == [0] * 30


def test_stated_splits_hold() -> None:
    dataset = samples("test", "validation", "train", None)
    assert dataset.splits == ("test", "validation", "train", "train")
    assert dataset.split_counts == {"train": 2, "validation": 1, "test": 1}


def test_a_split_that_is_not_stated_comes_from_train() -> None:
    dataset = samples(*["train"] * 200, "test")
    for sample, split in zip(dataset.samples[:200], dataset.splits, strict=False):
        expected = "validation" if split_of(sample.id) == "validation" else "train"
        assert split == expected
    assert dataset.splits[200] == "test"
    alone = samples(*["train"] * 200)
    assert alone.splits == samples(*[None] * 200).splits


@given(st.lists(st.sampled_from([None, "train", "validation", "test"]), max_size=20))
def test_splits_divide_the_set(stated: list[str | None]) -> None:
    dataset = samples(*stated)
    parts = [dataset.split(name) for name in ("train", "validation", "test")]
    assert sorted(id for part in parts for id in part.ids) == sorted(dataset.ids)
    for part, name in zip(parts, ("train", "validation", "test"), strict=True):
        assert set(part.splits) <= {name}  # parts keep the splits of the whole


def test_names_of_splits() -> None:
    dataset = samples("test", "validation", "train")
    assert dataset.split("val").ids == dataset.split("dev").ids == ["1"]
    assert dataset.split("all") is dataset
    with pytest.raises(DataError, match="did you mean 'train'"):
        dataset.split("trian")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_val2017.json", "validation"),
        ("train-00000-of-00001.parquet", "train"),
        ("Flickr_8k.devImages.txt", "validation"),
        ("restval", "train"),
        ("trainval.csv", None),
        ("tested.csv", None),
        ("train_test.csv", None),
        ("valley.tar", None),
    ],
)
def test_split_in_name(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_one_name_alone_states_nothing() -> None:
    assert splits_of_names(["test.csv", "other.csv"]) == {"test.csv": None, "other.csv": None}
    assert splits_of_names(["test.csv", "train.csv"]) == {"test.csv": "test", "train.csv": "train"}


def test_files_named_by_split(tmp_path: Path) -> None:
    planted.pictures(tmp_path / "images", ["1.jpg", "2.jpg", "3.jpg"])
    for name, number in (("train", 1), ("val", 2), ("test", 3)):
        (tmp_path / f"{name}.csv").write_text(f"image,text\nimages/{number}.jpg,hello\n")
    dataset = open_dataset(tmp_path)
    assert dict(zip(dataset.ids, dataset.splits, strict=True)) == {
        "1": "train",
        "2": "validation",
        "3": "test",
    }


def test_a_picture_in_two_splits_is_a_bad_row(tmp_path: Path) -> None:
    planted.pictures(tmp_path / "images", ["1.jpg"])
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("image,text\nimages/1.jpg,hello\n")
    with pytest.raises(DataError, match=r"train.csv, row 2: images/1.jpg is in train here and in"):
        open_dataset(tmp_path)


def test_fingerprint_tells_content_apart(tmp_path: Path) -> None:
    planted.pictures(tmp_path, ["1.jpg"])
    table = tmp_path / "pairs.csv"
    prints = set()
    for content in ("1.jpg,a", "1.jpg,b", "1.jpg,a\n1.jpg,b"):
        table.write_text(f"image,text\n{content}\n")
        prints |= {open_dataset(table).fingerprint, open_dataset(table).fingerprint}
    (tmp_path / "1.jpg").write_bytes(planted.jpeg(1, size=32))
    prints.add(open_dataset(table).fingerprint)
    assert len(prints) == 4
    (tmp_path / "1.jpg").rename(tmp_path / "2.jpg")
    with pytest.raises(DataError, match="no file"):
        open_dataset(table)
