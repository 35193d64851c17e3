"""Models learn from regions that a detector found before, and say which file does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plait.core.errors import DataError, RecipeError
from plait.data import open_dataset
from plait.training.batches.material import material_of
from plait.training.build.build import build_model
from plait.training.recipe.recipe import check
from plait.training.run.run import train
from plait.training.studies.compare import latency


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """30 pictures, blank: their colour is in the features beside them alone."""
    folder = tmp_path / "questions"
    folder.mkdir()
    asked: list[dict[str, Any]] = []
    answered: list[dict[str, Any]] = []
    for number in range(30):
        red = number % 2
        name = f"picture_{number:012d}"
        Image.new("RGB", (16, 8), (number, 0, 0)).save(folder / f"{name}.png")
        regions = 1 + number % 3
        np.savez(
            folder / f"{name}.npz",
            features=np.tile([red, 1 - red, number / 30], (regions, 1)),
            boxes=np.tile([0, 0, 16, 8], (regions, 1)),
            size=np.array([16, 8]),
        )
        key = {"question_id": number, "image_id": number}
        answer = "yes" if red else "no"
        asked.append({**key, "question": "is it red?"})
        answered.append(
            {**key, "answers": [{"answer": answer}] * 10, "multiple_choice_answer": answer}
        )
    (folder / "v2_questions.json").write_text(json.dumps({"questions": asked}))
    (folder / "v2_annotations.json").write_text(json.dumps({"annotations": answered}))
    return folder


def recipe_of(source: Path, width: int, **stage_more: Any) -> Any:
    stage = {
        "name": "answers",
        "tasks": [{"objective": "answer"}],
        "train": {"text.encoder": "full"},
        "epochs": 20,
        "batch_size": 16,
        "precision": "float32",
        "optimiser": {"lr": 0.02},
        **stage_more,
    }
    towers = {
        "image": {"encoder": "regions/precomputed", "options": {"width": width}},
        "text": {
            "encoder": "scratch/transformer",
            "options": {"width": 8, "layers": 1, "heads": 2, "max_length": 16},
        },
    }
    model = {"kind": "fusion", "dim": 8, "fusion": "concat", "towers": towers}
    data = {"source": str(source), "texts": "first"}
    return check({"name": "tiny", "data": data, "model": model, "stages": [stage]})


def test_it_answers_from_features_and_not_without_them(questions: Path, tmp_path: Path) -> None:
    result = train(recipe_of(questions, 3), out=tmp_path / "run")
    assert result.metrics["vqa"]["accuracy"] == 100
    assert result.metrics["controls"]["question_only"] < 80


def test_features_of_another_width_are_named_with_their_file(
    questions: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"\.npz: features are 3 wide, and the model takes 2048"):
        train(recipe_of(questions, 2048), out=tmp_path / "run")


def test_regions_cannot_be_augmented(questions: Path, tmp_path: Path) -> None:
    decoded = {"augment": [{"kind": "flip"}], "features": {"cache": False}}
    flipped = recipe_of(questions, 3, **decoded)
    with pytest.raises(RecipeError, match="found before cannot be augmented: leave it out"):
        train(flipped, out=tmp_path / "run")


def test_latency_is_that_of_a_pair_with_its_regions(questions: Path) -> None:
    model = build_model(recipe_of(questions, 3), ["is it red?"], {"answer": ["yes", "no"]})
    pair = material_of(open_dataset(str(questions))[:1])
    assert latency(model, pair) > 0
    (questions / "picture_000000000000.npz").unlink()
    with pytest.raises(DataError, match=r"questions\[0\].*no regions are beside this picture"):
        latency(model, pair)
