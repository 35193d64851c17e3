"""Search says when the model cannot read the words, and stays silent when it can."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from PIL import Image

from plait import api
from plait.data.base.dataset import PairDataset
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.storage import save_model
from plait.retrieval import build_index, contact_sheet, open_index


@pytest.fixture
def english(model: AlignmentModel) -> AlignmentModel:
    """The small model, told that its training texts were English."""
    told = copy.deepcopy(model)
    told.tower("text").encoder.preprocess.note_scripts(["a picture of something"] * 20)  # type: ignore[union-attr]
    return told


def test_hits_of_words_that_are_not_read_have_a_note(
    english: AlignmentModel, dataset: PairDataset, tmp_path: Path
) -> None:
    run, index = tmp_path / "run", tmp_path / "index"
    save_model(english, run)
    build_index(english, dataset, index, run=run, engine="torch")
    opened = open_index(index)  # the scripts come from the run's folder
    assert opened.note("a picture") is None
    assert opened.note(tmp_path / "pictures" / "0.png") is None
    told = opened.note("一张图片")
    assert told is not None and "Han" in told and "glosses=cc-cedict" in told
    hits = api.search(index, "一张图片", k=2, sheet=tmp_path / "noted.png")
    assert [hit["note"] for hit in hits] == [told, told]
    assert all("note" not in hit for hit in api.search(index, "a picture", k=2))
    contact_sheet([("一张图片", opened.search("一张图片", k=2))], tmp_path / "plain.png")
    with Image.open(tmp_path / "noted.png") as noted, Image.open(tmp_path / "plain.png") as plain:
        assert noted.height > plain.height and noted.width == plain.width


def test_an_old_model_of_bytes_says_nothing_of_itself(
    model: AlignmentModel, dataset: PairDataset, tmp_path: Path
) -> None:
    assert model.tower("text").encoder.preprocess.scripts is None  # type: ignore[union-attr]
    build_index(model, dataset, tmp_path / "index", engine="torch")
    opened = open_index(tmp_path / "index", model=model)
    assert opened.note("a picture") is None
