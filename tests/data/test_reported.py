"""Symptoms that users of other tools reported, tried here; the names tell where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.planted import tar_file
from tests.modalities.image.test_forms import COLOURS, EXPECTED, pairs, png

from plait.core.errors import DataError
from plait.data import inspect, open_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for one in COLOURS:
        (tmp_path / f"{one}.png").write_bytes(png(one))
    return tmp_path


@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_the_separator_need_not_be_stated(mark: str, folder: Path) -> None:
    """open_clip 144, 789 and 1083: KeyError 'filepath' unless the separator is given."""
    lines = [
        mark.join(("filepath", "title")),
        *(mark.join((f"{one}.png", f"a {one} one")) for one in COLOURS),
    ]
    (folder / "train.csv").write_text("\n".join(lines))
    assert pairs(folder) == EXPECTED


def test_a_key_of_a_shard_without_its_picture_is_one_bad_row(tmp_path: Path) -> None:
    """open_clip 179: the loader ends at a sample that has a text and no picture."""
    members = [("lost.txt", b"of nothing"), ("lost.json", b"{}")]
    for one in COLOURS:
        members += [(f"{one}.png", png(one)), (f"{one}.txt", f"a {one} one".encode())]
    result = inspect(tar_file(tmp_path / "a.tar", members))
    assert (result["samples"], result["skipped"]["kinds"]) == (2, {"missing-file": 1})


def test_conversations_in_metadata_beside_pictures(folder: Path) -> None:
    """datasets 7337: LLaVA's entries with ``file_name`` in ``metadata.jsonl`` are not read."""
    rows = [
        {
            "id": one,
            "file_name": f"{one}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe it."},
                {"from": "gpt", "value": f"a {one} one"},
            ],
        }
        for one in COLOURS
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert pairs(folder) == EXPECTED


def test_a_picture_that_no_turn_shows_is_told_by_its_row(folder: Path) -> None:
    """LlamaFactory 5329 and 6135: numbers of pictures and placeholders differ; which entry?"""
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "it"}]
    entries = [{"messages": turns, "images": ["/mnt/9b6a/data/red.png"]}]
    (folder / "d.json").write_text(json.dumps(entries))
    with pytest.raises(
        DataError, match=r"row 1: the turns hold 0 <image>, but one picture: write it"
    ):
        open_dataset(folder)


def test_captions_by_the_name_of_the_picture_are_told(folder: Path) -> None:
    """zer0int/CLIP-fine-tune 1: ``{"red.png": [captions]}``."""
    (folder / "labels.json").write_text(json.dumps({f"{one}.png": ["a", "b"] for one in COLOURS}))
    with pytest.raises(DataError, match=r"as a key: write a list of {\"image\": \"blue.png\""):
        open_dataset(folder)
