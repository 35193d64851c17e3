"""The recipes of students, without training them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plait.compression.students import _batches, exchange, spell_out, student_recipe
from plait.core.errors import RecipeError, UserError
from plait.models.store.storage import load_model
from plait.training.build.build import build_model, prepare_stage
from plait.training.build.init_from import start_from
from plait.training.recipe.recipe import read_run_recipe


def test_the_other_tower_is_the_teacher_s_and_rests(run: Path) -> None:
    overrides = ["model.towers.image.options.widths=[4,6]"]
    recipe = student_recipe("scratch/cnn", read_run_recipe(run), run, None, overrides)
    image, text = recipe.model.towers["image"], recipe.model.towers["text"]
    assert image.options["widths"] == [4, 6]
    assert image.options["size"] == 16  # of the teacher's options those that the encoder has
    assert text == read_run_recipe(run).model.towers["text"]
    stage = recipe.stages[0]
    modes = {name: stage.part(name).mode for name in ("image.encoder", "text.encoder")}
    assert modes == {"image.encoder": "full", "text.encoder": "frozen"}
    assert stage.part("text.projection").mode == "frozen"
    assert [task.objective for task in stage.tasks] == ["distil"]
    assert stage.tasks[0].teacher == str(run)
    model = build_model(recipe, ["red"])
    assert recipe.model.init_from is not None
    start_from(model, **recipe.model.init_from.model_dump())
    prepare_stage(model, recipe, 0)
    own, theirs = model.eval().embed(texts=["red"]), load_model(run).embed(texts=["red"])
    assert (own["text"] == theirs["text"]).all()


def test_a_whole_recipe_gets_the_task_alone(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((run / "recipe.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    recipe = student_recipe(str(path), None, run, None, ["stages.0.epochs=7"])
    assert recipe.model.init_from is None
    assert recipe.stages[0].epochs == 7
    assert [task.objective for task in recipe.stages[0].tasks] == ["info_nce", "distil"]


def test_mistakes(run: Path) -> None:
    recipe = read_run_recipe(run)
    with pytest.raises(UserError, match=r"--student audio=scratch/cnn: the model has no tower"):
        student_recipe("audio=scratch/cnn", recipe, run, None, [])
    with pytest.raises(UserError, match="no encoder scratch/nothing"):
        student_recipe("scratch/nothing", recipe, run, None, [])
    with pytest.raises(UserError, match="has no recipe to take the rest from"):
        student_recipe("scratch/cnn", None, run, None, [])
    with pytest.raises(RecipeError, match="no recipe 'nothing'"):
        student_recipe("nothing", recipe, run, None, [])


def content() -> dict[str, Any]:
    """What `exchange` and `spell_out` look at of a recipe."""
    tower = {"pretrained": False, "projection": {"kind": "linear"}}
    image = {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}}
    text = {"encoder": "mine", "options": {"layers": 1, "size": 9, "widths": 3, "heads": 2}}
    return {
        "model": {
            "towers": {
                "image": {**tower, **image, "vocabulary": None},
                "text": {**tower, **text, "vocabulary": {"kind": "word"}},
            },
            "init_from": {"run": "x"},
            "shared_layers": 3,
            "published": None,
            "temperature": {"max_scale": 100.0},
        },
        "stages": [{"train": {}}, {"train": {"text.encoder": {"mode": "frozen"}}}],
    }


@pytest.mark.parametrize("source", ["scratch/transformer", "text=scratch/transformer"])
def test_an_encoder_goes_into_the_tower_that_takes_it(source: str) -> None:
    """Options that it has not are left out; without weights of its own it trains in all stages."""
    given = content()
    assert exchange(given, source) == "text"
    tower = given["model"]["towers"]["text"]
    assert tower["encoder"] == "scratch/transformer"
    assert tower["options"] == {"layers": 1, "heads": 2} and tower["pretrained"]
    assert tower["vocabulary"] == {"kind": "word"}
    assert given["model"]["towers"]["image"] == content()["model"]["towers"]["image"]
    assert given["model"]["init_from"] is None and given["model"]["shared_layers"] == 0
    assert [stage["train"] for stage in given["stages"]] == [{"text.encoder": {"mode": "full"}}] * 2


def test_an_encoder_that_no_tower_takes() -> None:
    with pytest.raises(UserError, match="--student audio=scratch/cnn: the model has no tower 'aud"):
        exchange(content(), "audio=scratch/cnn")
    with pytest.raises(UserError, match="--student text=scratch/cnn: "):
        exchange(content(), "text=scratch/cnn")


def test_a_published_model_in_parts() -> None:
    run, spec = Path("runs/mine"), {
        "towers": {
            "image": {"projection": {"kind": "linear", "width": 4, "dim": 6, "bias": True}},
            "text": {"projection": {"kind": "identity", "width": 6, "dim": 6}},
        },
        "max_scale": None,
        "bias": True,
    }  # fmt: skip
    given = content()
    spell_out(given, spec, run)
    assert given == content()  # nothing to do for what is in parts already
    given["model"]["published"] = "a/clip"
    spell_out(given, spec, run)
    model = given["model"]
    assert (model["published"], model["wise_ft"], model["bias"], model["dim"]) == (None, None, 0, 6)
    assert model["temperature"]["max_scale"] == 1e4
    image, text = model["towers"]["image"], model["towers"]["text"]
    assert image["encoder"] == text["encoder"] == "run/runs/mine"
    assert image["projection"] == {"kind": "linear", "options": {"bias": True}}
    assert text["projection"] == {"kind": "identity", "options": {}}
    limited = content()
    limited["model"]["published"] = "a/clip"
    spell_out(limited, {**spec, "max_scale": 50.0, "bias": False}, run)
    assert limited["model"]["temperature"]["max_scale"] == 50 and limited["model"]["bias"] is None


def test_pictures_go_through_together_and_texts_alone() -> None:
    rows = [{"pixels": np.full((1, 3, 2, 2), n, np.uint8)} for n in range(20)]
    found = _batches(rows)
    assert [len(one["pixels"]) for one in found] == [16, 4]
    together = np.concatenate([one["pixels"] for one in found])
    assert together[:, 0, 0, 0].tolist() == list(range(20))
    texts = [{"ids": np.zeros((1, n)), "mask": np.ones((1, n))} for n in (3, 5)]
    assert [one["ids"].shape for one in _batches(texts)] == [(1, 3), (1, 5)]
