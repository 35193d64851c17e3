from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("easy_vqa")

import easy_vqa as package

from plait.core.errors import DataError, MissingExtra
from plait.data.base.dataset import PairDataset
from plait.data.open.catalog import CATALOG
from plait.data.open.open import open_dataset
from plait.data.sets import easy_vqa
from plait.data.vqa.answers import answer_set
from plait.modalities.image.decode import decode_image


@pytest.fixture(scope="module")
def dataset() -> PairDataset:
    return open_dataset("easy-vqa")


def test_all_questions_as_the_package_has_them(dataset: PairDataset) -> None:
    official = [*zip(*package.get_train_questions()), *zip(*package.get_test_questions())]
    found = [
        (one.texts[0], one.labels["answer"], int(str(one.group).split("-")[1])) for one in dataset
    ]
    assert found == official
    assert len(set(dataset.ids)) == len(dataset) == 48_248
    assert dataset.ids[:2] == ["train-0-1", "train-0-2"]


def test_splits(dataset: PairDataset) -> None:
    counts = dataset.split_counts
    assert counts["test"] == 9_673
    assert counts["train"] + counts["validation"] == 38_575
    of_picture: dict[str, set[str]] = {}
    for sample in dataset:
        of_picture.setdefault(sample.group_key, set()).add(str(sample.split))
    assert all(len(splits) == 1 for splits in of_picture.values())
    pictures = Counter(next(iter(splits)) for splits in of_picture.values())
    assert pictures["test"] == 1_000
    assert pictures["train"] + pictures["validation"] == 4_000
    assert 350 < pictures["validation"] < 450
    test = {name for name, splits in of_picture.items() if splits == {"test"}}
    assert all(name.startswith("test-") for name in test)
    assert of_picture["train-0"] == {"train"}  # by a hash: the same on every machine


def test_answers(dataset: PairDataset) -> None:
    answers = answer_set(dataset.split("train"))
    assert sorted(answers.answers) == sorted(package.get_answers())
    assert answers.answers[:2] == ("yes", "no")
    sample = dataset.split("test")[0]
    assert answers.targets(sample, strict=True).sum() == 1
    kinds = {kind: set() for kind in ("yes/no", "shape", "color")}
    for one in dataset:
        kinds[one.labels["answer_type"]].add(one.labels["answer"])
    assert {kind: len(found) for kind, found in kinds.items()} == {
        "yes/no": 2,
        "shape": 3,
        "color": 8,
    }


def test_pictures(dataset: PairDataset) -> None:
    sample = dataset.split("test")[0]
    assert sample.image is not None
    assert decode_image(sample.image.read(), name=sample.image.name).shape[:2] == (64, 64)
    assert dataset[0].image is dataset[1].image  # shared by the questions about it


def test_what_a_picture_shows_is_told_by_its_questions(
    dataset: PairDataset, tmp_path: Path
) -> None:
    for one in dataset:
        answer, kind = one.labels["answer"], one.labels["answer_type"]
        if kind in ("shape", "color"):
            assert one.labels[kind] == answer and answer in one.labels["description"]
    (tmp_path / "test").mkdir()
    (tmp_path / "train").mkdir()
    asked = [
        ["does the image not contain a red shape?", "no", 0],
        ["is there a circle?", "no", 0],
        ["what color is the circle?", "blue", 1],
        ["is there not a teal shape in the image?", "yes", 2],
    ]
    for split in ("train", "test"):
        (tmp_path / split / "questions.json").write_text(json.dumps(asked))
    found = easy_vqa.load(folder=tmp_path).split("test")
    descriptions = [one.labels["description"] for one in found]
    assert descriptions == ["a red shape", "a red shape", "a blue circle", "a shape"]
    assert "shape" not in found[0].labels and found[0].labels["color"] == "red"


def test_catalogue_says_the_licence() -> None:
    assert CATALOG["easy-vqa"].licence == "MIT"


def test_a_folder_of_that_layout(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        questions = [["what shape?", "circle", 3], ["is it red?", "no", 3]]
        (tmp_path / split / "questions.json").write_text(json.dumps(questions))
    found = easy_vqa.load(folder=tmp_path)
    assert found.ids == ["train-3-1", "train-3-2", "test-3-1", "test-3-2"]
    assert found[0].labels["answers"] == ("circle",)
    (tmp_path / "test" / "questions.json").unlink()
    with pytest.raises(DataError, match=r"questions\.json: cannot be read"):
        easy_vqa.load(folder=tmp_path)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(MissingExtra, match=r"easy-VQA data set needs easy-vqa.*\[demo\]"):
        easy_vqa.load()
