"""The same photographs in every format give the same samples, ids and splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data import planted

from plait.data.base.splits import split_of
from plait.data.open.open import inspect, open_dataset

EXPECTED = {
    name.removesuffix(".jpg"): (tuple(planted.captions(number)), planted.jpeg(number))
    for number, name in enumerate(planted.NAMES)
}


@pytest.mark.parametrize("form", planted.FORMS)
def test_same_samples_in_every_format(form: str, tmp_path: Path) -> None:
    write, name = planted.FORMS[form]
    dataset = open_dataset(write(tmp_path / "set"))
    assert dataset.format == name, dataset.detected
    assert dataset.detected
    assert {sample.id for sample in dataset} == EXPECTED.keys()
    assert len(dataset) == len(EXPECTED)
    for sample, split in zip(dataset, dataset.splits, strict=True):
        texts, data = EXPECTED[sample.id]
        assert sample.texts == texts
        assert sample.image is not None
        assert sample.image.read() == data
        assert sample.image.size == len(data)
        assert split == split_of(sample.id)
    assert dataset.skipped == ()


def test_every_split_is_there() -> None:
    """Otherwise the test above would say little about splits."""
    assert {split_of(id) for id in EXPECTED} == {"train", "validation", "test"}


def test_inspect_counts(tmp_path: Path) -> None:
    found = inspect(planted.coco(tmp_path / "set"))
    assert (found["format"], found["samples"], found["texts"]) == ("coco", 26, 130)
    assert sum(found["splits"].values()) == 26
    assert found["skipped"]["count"] == 0
    assert found["examples"][0]["id"] == "1000_000"
