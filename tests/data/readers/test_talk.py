"""Conversations wherever they stand: JSON, lines, CSV, Parquet, shards, data sets of the hub."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.planted import tar_file
from tests.modalities.image.test_forms import COLOURS, EXPECTED, pairs, png, spelt

from plait.core.errors import DataError
from plait.data import inspect, open_dataset
from plait.data.readers.talk import turns_in


def turns(form: str, answer: str) -> list[Any]:
    """One question about a picture, and its answer."""
    if form == "sharegpt":
        return [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": answer}]
    asked: Any = "<image>What?"
    said: Any = answer
    if form == "parts":  # as transformers' chat templates and TRL have them
        asked = [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]
        said = [{"type": "text", "text": answer}]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


def as_parquet(rows: list[dict[str, Any]], folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "talk.parquet")
    return folder / "talk.parquet"


def as_csv(rows: list[dict[str, Any]], folder: Path) -> Path:
    with (folder / "talk.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for number, row in enumerate(rows):  # JSON, and what str() of a list is
            dump: Callable[[Any], str] = json.dumps if number else str
            writer.writerow(
                {name: one if isinstance(one, str) else dump(one) for name, one in row.items()}
            )
    return folder / "talk.csv"


@pytest.mark.parametrize("write", [as_parquet, as_csv])
@pytest.mark.parametrize("form", ["sharegpt", "messages", "parts"])
def test_a_column_of_conversations(form: str, write: Any, tmp_path: Path) -> None:
    for one in COLOURS:
        (tmp_path / f"{one}.png").write_bytes(png(one))
    column = "conversations" if form == "sharegpt" else "messages"
    rows = [{column: turns(form, f"a {one} one"), "images": [f"{one}.png"]} for one in COLOURS]
    source = write(rows, tmp_path)
    assert pairs(source) == EXPECTED
    for sample in open_dataset(source):
        ((asked, said),) = sample.labels["conversations"]
        assert asked == {"from": "human", "value": "<image>What?"}
        assert said == {"from": "gpt", "value": sample.texts[0]}


@pytest.mark.parametrize("form", ["messages", "parts"])
def test_parquet_with_pictures_inside(form: str, tmp_path: Path) -> None:
    rows = [
        {"messages": turns(form, f"a {one} one"), "images": [{"bytes": png(one), "path": None}]}
        for one in COLOURS
    ]
    assert pairs(as_parquet(rows, tmp_path)) == EXPECTED


def test_pictures_among_the_parts_alone(tmp_path: Path) -> None:
    rows = []
    for one in COLOURS:
        part = {"type": "image_url", "image_url": {"url": spelt("data URL", one)}}
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": [part]},
                    {"role": "assistant", "content": [{"type": "text", "text": f"a {one} one"}]},
                ]
            }
        )
    assert pairs(as_parquet(rows, tmp_path)) == EXPECTED


def test_conversations_of_a_set_of_the_hub(tmp_path: Path) -> None:
    import datasets

    rows = {
        "images": [[{"bytes": png(one), "path": None}] for one in COLOURS],
        "messages": [turns("messages", f"a {one} one") for one in COLOURS],
    }
    features = datasets.Features(
        images=datasets.Sequence(datasets.Image()),
        messages=[{"role": datasets.Value("string"), "content": datasets.Value("string")}],
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    assert pairs(tmp_path / "saved") == EXPECTED


def test_conversations_in_shards(tmp_path: Path) -> None:
    members = []
    for one in COLOURS:
        entry = {"conversations": turns("sharegpt", f"a {one} one")}
        members += [(f"{one}.png", png(one)), (f"{one}.json", json.dumps(entry).encode())]
    assert pairs(tar_file(tmp_path / "a.tar", members)) == EXPECTED


@pytest.mark.parametrize("placeholder", ["", "<image>"])
@pytest.mark.parametrize("names", [("instruction", "input", "output"), ("query", "", "response")])
def test_instructions_and_outputs(
    names: tuple[str, str, str], placeholder: str, tmp_path: Path
) -> None:
    asked, more, answered = names
    rows = []
    for one in COLOURS:
        row = {
            asked: f"{placeholder}What?",
            answered: f"a {one} one",
            "images": spelt("list of base64", one),
        }
        rows.append({**row, more: ""} if more else row)
    (tmp_path / "d.json").write_text(json.dumps(rows))
    assert pairs(tmp_path) == EXPECTED
    assert open_dataset(tmp_path)[0].labels["conversations"][0][0]["value"] == "<image>What?"


def test_entries_without_a_picture_and_with_two_are_told(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    rows = [
        {"messages": turns("messages", "a red one"), "images": ["red.png"]},
        {
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
            "images": [],
        },
        {"messages": turns("messages", "two"), "images": ["red.png", "red.png"]},
        {
            "messages": [
                {"role": "user", "content": "What?"},
                {"role": "assistant", "content": "x"},
            ],
            "images": ["red.png"],
        },
    ]
    result = inspect(as_parquet(rows, tmp_path))
    assert result["samples"] == 2
    assert result["skipped"]["kinds"] == {"several-pictures": 1, "placeholder": 1}
    with pytest.raises(DataError, match=r"row 3: 'image' lists 2 files"):
        open_dataset(tmp_path / "talk.parquet")


@pytest.mark.parametrize(
    "cell", [["a", "b"], "[laughs]", '["a"]', "[{]", [{"raw": "x"}], [], None, 3]
)
def test_what_is_no_conversation(cell: Any) -> None:
    assert turns_in(cell) is None


def test_bytes_of_any_name_and_base64_stored_as_bytes(tmp_path: Path) -> None:
    for name, data in (("plain", png), ("text", lambda one: base64.b64encode(png(one)))):
        table = pa.table(
            {"blob": [data(one) for one in COLOURS], "text": [f"a {one} one" for one in COLOURS]}
        )
        pq.write_table(table, tmp_path / f"{name}.parquet")
        assert pairs(tmp_path / f"{name}.parquet") == EXPECTED
