"""Recipes that somebody else wrote: bounded before anything is made of them, one message each."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from plait.core.errors import ModelError, RecipeError
from plait.training.build.build import build_model
from plait.training.recipe.recipe import load_recipe

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join(['*' + chr(97 + n)] * 10)}]}}\n"
    for n in range(9)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        MERGES,
        "a: &a [*a]",
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 100_000,
        "- " * 50_000,
        "a: " + "[" * 50 + "]" * 50,
        "a: [" + "1, " * 100_000 + "]",
        "a: " + "9" * 10_000,
        "a: 2001-99-99",
        "a: 2001-01-01T99:99:99",
        "a: !!int x",
        "a: !!python/object/apply:os.system ['true']",
        "? [a]\n: b",
        "a: 1\na: 2",
        "a: *b",
        "name: x\nmodel: {dim: 1" + "0" * 30 + "}",
        "x" * 2_000_000,
        "",
        "\x00",
    ],
)
@pytest.mark.timeout(30)
def test_yaml_is_counted_before_it_is_made(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    started = time.process_time()
    with pytest.raises((RecipeError, ModelError, Exception)) as info:
        load_recipe(path)
    assert info.value.exit_code == 2  # type: ignore[attr-defined]
    assert len(str(info.value)) < 2000
    assert time.process_time() - started < 10


def test_no_device_and_no_pipe_is_a_recipe(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "r.yaml")
    with pytest.raises(Exception, match="is a named pipe") as info:
        load_recipe(tmp_path / "r.yaml")
    assert info.value.exit_code == 2  # type: ignore[attr-defined]


def test_few_aliases_are_fine(tmp_path: Path) -> None:
    text = Path("recipes/scratch.yaml").read_text() + "\ncheckpoints: &c {keep: 3}\n"
    (tmp_path / "r.yaml").write_text(text)
    assert load_recipe(tmp_path / "r.yaml").checkpoints.keep == 3


@pytest.mark.parametrize(
    "override",
    [
        "model.dim=1000000000000",
        "stages.0.batch_size=1000000000000000",
        "stages.0.epochs=1000000000000000",
        "model.towers.text.vocabulary.size=1000000000000",
        "model.temperature.init=.inf",
        "stages.0.lr=1e999",
        "seed=" + "9" * 4000,
        "seed=" + "9" * 9000,
        "name=[" + "[" * 9000,
        "data.languages=[" + "a," * 30_000 + "]",
        "data.root=3",
        "data.allow_outside=maybe",
    ],
)
def test_a_value_has_its_bounds(override: str) -> None:
    with pytest.raises(RecipeError) as info:
        load_recipe("scratch", [override])
    assert "Traceback" not in str(info.value)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("model.towers.text.options.width=1000000000000", "at most"),
        ("model.towers.text.options.layers=1000000000", "at most 10,000"),
        ("model.towers.text.options.width=9000000", "GB of memory are free"),
    ],
)
def test_a_model_that_no_memory_holds_is_refused_before_it_is_made(option: str, said: str) -> None:
    recipe = load_recipe("scratch", [option])
    with pytest.raises(ModelError, match=said):
        build_model(recipe, ["some words of a text", "others"])


def test_a_recipe_states_where_files_may_lie() -> None:
    recipe = load_recipe("scratch", ["data.root=[/a, /b]", "data.allow_outside=true"])
    assert recipe.data.root == ["/a", "/b"]
    assert recipe.data.allow_outside
    assert load_recipe("scratch").data.root is None
