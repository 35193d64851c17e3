"""What a comparison finds before it trains anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from plait.core.errors import DataError, RecipeError
from plait.data import open_dataset
from plait.training.batches.material import material_of
from plait.training.build.build import build_model
from plait.training.recipe.recipe import check
from plait.training.studies.compare import compare, latency

RECIPE: dict[str, Any] = {
    "name": "matching",
    "model": {
        "kind": "fusion",
        "dim": 8,
        "fusion": "concat",
        "towers": {
            "image": {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}},
            "text": {
                "encoder": "scratch/transformer",
                "options": {"width": 8, "layers": 1, "heads": 2, "max_length": 16},
            },
        },
    },
    "stages": [
        {
            "tasks": [{"objective": "match"}],
            "train": {"image.encoder": "full", "text.encoder": "full"},
            "steps": 1,
            "batch_size": 4,
        }
    ],
}
OVER = "model.fusion=concat,gated"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "matching.yaml"
    file.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return file


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs of training and 2 of validation; what would be drawn for a test split is left out."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    lines = []
    for number in range(10):
        Image.new("RGB", (16, 16), (25 * number, 0, 0)).save(folder / f"{number}.png")
        split = "validation" if number > 7 else "train"
        line = {"file_name": f"{number}.png", "text": f"red {number}", "split": split}
        lines.append(json.dumps(line))
    file = folder / "metadata.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = [line for line, split in zip(lines, open_dataset(str(folder)).splits) if split != "test"]
    assert 2 < len(kept) < 10
    file.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return folder


def test_without_a_test_split_nothing_is_trained(recipe: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"pairs: .*no figures to compare: the test split is empty"):
        compare(recipe, OVER, out=out, data=str(pairs))
    with pytest.raises(RecipeError, match=r"evaluation\.test is null, so there are no figures"):
        compare(recipe, OVER, out=out, data=str(pairs), overrides=["evaluation.test=null"])
    assert not out.exists()


def test_tasks_that_nothing_measures(recipe: Path, pairs: Path, tmp_path: Path) -> None:
    hidden = ["stages.0.tasks=[{objective: mlm}]"]
    with pytest.raises(
        RecipeError, match=r"how well mlm is done, .*add answer or classify or match"
    ):
        compare(recipe, OVER, out=tmp_path / "out", data=str(pairs), overrides=hidden)


@pytest.mark.parametrize("kind", ["fusion", "alignment"])
def test_latency_of_both_kinds_of_models(kind: str, pairs: Path) -> None:
    content = {**RECIPE, "data": {"source": str(pairs)}}
    if kind == "alignment":
        model = {key: value for key, value in RECIPE["model"].items() if key != "fusion"}
        stage = {**RECIPE["stages"][0], "tasks": [{"objective": "info_nce"}]}
        content |= {"model": {**model, "kind": kind}, "stages": [stage]}
    data = open_dataset(str(pairs))
    built = build_model(check(content), [text for sample in data for text in sample.texts])
    assert 0 < latency(built, material_of(data[:1])) < 5
