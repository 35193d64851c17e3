"""The recipes of students, without training them."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.compression.students import student_recipe
from plait.core.errors import RecipeError, UserError
from plait.models.storage import load_model
from plait.training.build import build_model, prepare_stage
from plait.training.init_from import start_from
from plait.training.recipe import read_run_recipe


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
