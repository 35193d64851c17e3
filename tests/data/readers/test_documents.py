"""COCO, Karpathy, LLaVA and VQAv2: faults, splits, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.data import planted

from plait.core.errors import DataError
from plait.data.base.dataset import PairDataset
from plait.data.open.open import open_dataset


def opened(path: Path, document: Any) -> PairDataset:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return open_dataset(path, on_bad_row="skip")


def faults(dataset: PairDataset) -> list[tuple[str, int | str | None]]:
    return [(bad.kind, bad.row) for bad in dataset.skipped]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    planted.pictures(tmp_path / "images", ["1.jpg", "2.jpg", "3.jpg"])
    return tmp_path


def test_coco_faults(root: Path) -> None:
    document = {
        "images": [
            {"id": 1, "file_name": "1.jpg"},
            {"id": 2, "file_name": "gone.jpg"},
            {"id": 3, "file_name": "3.jpg"},
            {"id": 1, "file_name": "2.jpg"},
            {"file_name": "2.jpg"},
            {"id": 5, "file_name": 7},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "caption": "good"},
            {"id": 2, "image_id": 1, "caption": "  "},
            {"id": 3, "image_id": 9, "caption": "orphan"},
            {"id": 4, "caption": "no image"},
            {"id": 5, "image_id": 2, "caption": "of a missing file"},
            {"id": 6, "image_id": 1, "caption": 4},
        ],
    }
    dataset = opened(root / "captions.json", document)
    assert [(sample.id, sample.texts) for sample in dataset] == [("1", ("good",))]
    assert set(faults(dataset)) == {
        ("missing-column", "annotations[3]"),
        ("empty-text", "annotations[1]"),
        ("wrong-type", "annotations[5]"),
        ("missing-file", "images[1]"),
        ("empty-text", "images[2]"),
        ("id-clash", "images[3]"),
        ("missing-column", "images[4]"),
        ("wrong-type", "images[5]"),
        ("orphan-caption", "annotations[2]"),
    }
    with pytest.raises(DataError, match=r"captions.json, row annotations\[3\]: has no 'image_id'"):
        open_dataset(root / "captions.json")


def test_coco_files_of_two_splits(root: Path) -> None:
    for split, name in (("train2017", "1.jpg"), ("val2017", "2.jpg")):
        document = {
            "images": [{"id": 1, "file_name": name}],
            "annotations": [{"id": 1, "image_id": 1, "caption": split}],
        }
        opened(root / "annotations" / f"captions_{split}.json", document)
    dataset = open_dataset(root)
    assert dict(zip(dataset.ids, dataset.splits, strict=True)) == {"1": "train", "2": "validation"}


def test_bad_utf8_in_json_names_the_line(root: Path) -> None:
    path = root / "captions.json"
    path.write_bytes(b'{"images": [{"id": 1, "file_name": "1.jpg"}],\n"annotations": [\n'
                     b'{"id": 1, "image_id": 1, "caption": "caf\xe9"}]}')  # fmt: skip
    with pytest.raises(DataError, match=r"captions.json, row 3: byte 0xe9 .* not valid UTF-8"):
        open_dataset(path)


def test_karpathy(root: Path) -> None:
    def image(name: str, **more: Any) -> dict[str, Any]:
        return {"filename": name, "sentences": [{"raw": "a"}, {"raw": "b"}], **more}

    document = {
        "images": [
            image("1.jpg", filepath="images", split="restval", cocoid=77),
            image("2.jpg", filepath="val2014", split="val"),
            image("3.jpg", split="holdout"),
            image("gone.jpg", split="test"),
            {"filename": "3.jpg", "split": "test", "sentences": [{"raw": ""}, {"tokens": []}]},
            {"filename": "3.jpg", "split": "test"},
        ]
    }
    dataset = opened(root / "dataset_coco.json", document)
    assert [(s.id, s.split, s.texts) for s in dataset] == [
        ("1", "train", ("a", "b")),
        ("2", "validation", ("a", "b")),
    ]
    assert dataset[0].meta == {"cocoid": 77}
    assert faults(dataset) == [
        ("bad-split", "images[2]"),
        ("missing-file", "images[3]"),
        ("empty-text", "images[4].sentences[0]"),
        ("missing-column", "images[4].sentences[1]"),
        ("missing-column", "images[5]"),
    ]


def turns(*values: str, start: int = 0) -> list[dict[str, str]]:
    speakers = ("human", "gpt")
    return [
        {"from": speakers[(start + number) % 2], "value": value}
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize("lines", [False, True])
def test_llava(root: Path, lines: bool) -> None:
    entries = [
        {"id": "x", "image": "1.jpg", "conversations": turns("<image>\nWhat?", "A dog.")},
        {"id": "y", "conversations": turns("Hello", "Hi.", "And?", "Well.")},
        {"id": "x2", "image": "1.jpg", "conversations": turns("<image>\nColour?", "Brown.")},
        {"id": "z", "image": "2.jpg", "conversations": turns("What?", "A dog.")},
        {"id": "z", "image": "2.jpg", "conversations": turns("<image><image>", "A dog.")},
        {"id": "z", "image": "2.jpg", "conversations": turns("<image>")},
        {"id": "z", "image": "gone.jpg", "conversations": turns("<image>", "a")},
        {"id": "z", "image": "2.jpg", "conversations": [{"from": "narrator", "value": "<image>"}]},
        {"id": "z", "image": "2.jpg"},
    ]
    path = root / ("chat.jsonl" if lines else "chat.json")
    if lines:
        path.write_text("\n".join(map(json.dumps, entries)))
    else:
        path.write_text(json.dumps(entries, indent=2))
    dataset = open_dataset(path, on_bad_row="skip")
    assert dataset.format == "llava"
    dog, talk = dataset
    assert (dog.id, dog.texts) == ("1", ("A dog.", "Brown."))
    assert [len(one) for one in dog.labels["conversations"]] == [2, 2]
    assert (talk.id, talk.image, talk.texts) == ("y", None, ("Hi.", "Well."))
    assert faults(dataset) == [
        ("placeholder", 4),
        ("placeholder", 5),
        ("empty-text", 6),
        ("missing-file", 7),
        ("wrong-type", 8),
        ("missing-column", 9),
    ]


def vqa(root: Path, split: str, ids: list[int], first: int = 0) -> None:
    planted.pictures(root / split, [f"COCO_{split}_{id:012d}.jpg" for id in ids])
    questions = [
        {"image_id": id, "question_id": first + id * 10 + k, "question": f"what is {k}?"}
        for id in ids
        for k in range(2)
    ]
    answers = [
        {
            "image_id": one["image_id"],
            "question_id": one["question_id"],
            "question_type": "what is",
            "answer_type": "other",
            "multiple_choice_answer": "a dog",
            "answers": [{"answer": "a dog", "answer_id": k} for k in range(10)],
        }
        for one in questions
    ]
    name = f"v2_{{}}mscoco_{split}_{{}}.json"
    (root / name.format("OpenEnded_", "questions")).write_text(
        json.dumps({"data_subtype": split, "questions": questions})
    )
    (root / name.format("", "annotations")).write_text(
        json.dumps({"data_subtype": split, "annotations": answers})
    )


def test_vqa(tmp_path: Path) -> None:
    vqa(tmp_path, "train2014", [5, 6])
    vqa(tmp_path, "val2014", [5, 8], first=1000)  # a picture 5 is there twice: the subtype decides
    dataset = open_dataset(tmp_path)
    assert dataset.format == "vqa"
    found = {s.id: (s.group, split) for s, split in zip(dataset, dataset.splits, strict=True)}
    assert found["50"] == ("COCO_train2014_000000000005", "train")
    assert found["1050"] == ("COCO_val2014_000000000005", "validation")
    assert len(found) == 8


def test_vqa_of_one_split(tmp_path: Path) -> None:
    vqa(tmp_path, "val2014", [5, 8])
    whole = open_dataset(tmp_path)
    assert whole.ids == ["50", "51", "80", "81"]
    one = whole[0]
    assert one.texts == ("what is 0?",)
    assert one.group == "COCO_val2014_000000000005"
    assert one.labels["answers"] == ["a dog"] * 10
    assert (one.labels["answer"], one.labels["question"]) == ("a dog", "what is 0?")
    assert one.image is not None
    assert one.image.read() == planted.jpeg(0)
    alone = open_dataset(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json")
    assert [(s.id, s.labels) for s in alone] == [(s.id, s.labels) for s in whole]
    assert whole.splits[0] == whole.splits[1]


def test_vqa_faults(tmp_path: Path) -> None:
    vqa(tmp_path, "val2014", [5])
    path = tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json"
    document = json.loads(path.read_text())
    document["questions"] = [
        {"image_id": 5, "question_id": 50, "question": "good?"},
        {"image_id": 9, "question_id": 90, "question": "no picture?"},
        {"image_id": 5, "question_id": 52, "question": ""},
        {"image_id": 5, "question_id": "53", "question": "type?"},
        {"image_id": 5, "question": "no id?"},
    ]
    dataset = opened(path, document)
    assert dataset.ids == ["50"]
    assert faults(dataset) == [
        ("missing-file", "questions[1]"),
        ("empty-text", "questions[2]"),
        ("wrong-type", "questions[3]"),
        ("missing-column", "questions[4]"),
        ("orphan-caption", "question_id 51"),
    ]
