"""VQA v2 as the hub has it: with pictures in the tables, and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from tests.data import planted

from plait.core.errors import DataError
from plait.data.open.open import open_dataset
from plait.data.sets import vqa_v2
from plait.data.vqa.answers import answer_set

PEOPLE = ["dog"] * 7 + ["a dog", "cat", "puppy"]


def row(question_id: int, image_id: int, *, answered: bool = True, **more: Any) -> dict[str, Any]:
    answers = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number}
        for number, answer in enumerate(PEOPLE, 1)
    ]
    return {
        "question_id": question_id,
        "image_id": image_id,
        "question": f"what is {question_id}?",
        "question_type": "what is" if answered else None,
        "answer_type": "other" if answered else None,
        "multiple_choice_answer": "dog" if answered else None,
        "answers": answers if answered else None,
        **more,
    }


FEATURES = datasets.Features(
    {
        "question_id": datasets.Value("int64"),
        "image_id": datasets.Value("int64"),
        "question": datasets.Value("string"),
        "question_type": datasets.Value("string"),
        "answer_type": datasets.Value("string"),
        "multiple_choice_answer": datasets.Value("string"),
        "answers": [
            {
                "answer": datasets.Value("string"),
                "answer_confidence": datasets.Value("string"),
                "answer_id": datasets.Value("int64"),
            }
        ],
    }
)


def saved(folder: Path, *, pictures: bool, **parts: list[dict[str, Any]]) -> Path:
    features = datasets.Features({**FEATURES, **({"image": datasets.Image()} if pictures else {})})
    tables = {}
    for split, rows in parts.items():
        if pictures:
            for one in rows:
                one["image"] = {"bytes": planted.jpeg(one["image_id"]), "path": None}
        tables[split] = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict(tables).save_to_disk(folder)
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return saved(
        tmp_path / "copy",
        pictures=True,
        train=[row(10, 1), row(11, 1), row(20, 2)],
        validation=[row(30, 3)],
        testdev=[row(40, 4, answered=False)],
        test=[row(40, 4, answered=False), row(50, 5, answered=False)],
    )


def test_pictures_in_the_tables(copy: Path) -> None:
    dataset = vqa_v2.load(repository=copy)
    assert dataset.split_counts == {"train": 3, "validation": 1, "test": 2}
    assert dataset.ids == ["10", "11", "20", "30", "40", "50"]
    first = dataset[0]
    assert first.image is not None
    assert first.image.read() == planted.jpeg(1)
    assert dataset[3].image is not None
    assert dataset[3].image.read() == planted.jpeg(3)
    assert first.group == dataset[1].group == "COCO_train2014_000000000001"
    assert dataset[4].group == "COCO_test2015_000000000004"
    assert first.texts == ("what is 10?",)
    assert first.labels == {
        "question": "what is 10?",
        "answers": PEOPLE,
        "answer": "dog",
        "question_type": "what is",
        "answer_type": "other",
    }
    assert dataset[5].labels == {"question": "what is 50?"}
    assert answer_set(dataset.split("train")).answers == ("dog",)


def test_a_part(copy: Path) -> None:
    assert vqa_v2.load(repository=copy, split="train", limit=2).ids == ["10", "11"]
    with pytest.raises(DataError, match="unknown split 'trian'; did you mean 'train'"):
        vqa_v2.load(repository=copy, split="trian")


def test_pictures_in_a_folder(tmp_path: Path) -> None:
    copy = saved(tmp_path / "copy", pictures=False, train=[row(10, 1)], validation=[row(30, 3)])
    images = tmp_path / "coco"
    for name in (
        "train2014/COCO_train2014_000000000001.jpg",
        "val2014/COCO_val2014_000000000003.jpg",
    ):
        (images / name).parent.mkdir(parents=True)
        (images / name).write_bytes(planted.jpeg(1))
    dataset = vqa_v2.load(repository=copy, images=images)
    assert [one.image.name for one in dataset if one.image] == [
        "train2014/COCO_train2014_000000000001.jpg",
        "val2014/COCO_val2014_000000000003.jpg",
    ]
    (images / "val2014/COCO_val2014_000000000003.jpg").unlink()
    with pytest.raises(DataError, match="1 of 2 pictures are missing"):
        vqa_v2.load(repository=copy, images=images)


def test_other_tables(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list([{"question": "what?", "answers": ["dog"]}])
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "copy")
    with pytest.raises(DataError, match="no column 'image_id', but question, answers"):
        vqa_v2.load(repository=tmp_path / "copy")
    copy = saved(tmp_path / "more", pictures=True, validation=[row(30, 3)])
    with pytest.raises(DataError, match="has no train questions, but validation"):
        vqa_v2.load(repository=copy, split="train")


def test_a_row_without_question(tmp_path: Path) -> None:
    copy = saved(tmp_path / "copy", pictures=True, validation=[row(30, 3), row(31, 3, question="")])
    with pytest.raises(DataError, match="validation, row 2: the text is empty"):
        vqa_v2.load(repository=copy)


def test_without_a_hub_one_sentence() -> None:
    with pytest.raises(DataError) as caught:
        open_dataset("vqa-v2")
    message = str(caught.value)
    assert message.startswith("vqa-v2 comes from the Hugging Face hub (lmms-lab/VQAv2), which")
    assert "\n" not in message
