from __future__ import annotations

from pathlib import Path

import pytest

from plait.core.errors import RecipeError
from plait.training.recipe.recipe import (
    check,
    list_recipes,
    load_recipe,
    recipe_text,
    resolved_yaml,
)
from plait.training.recipe.yaml_lines import parse_value, parse_yaml

BUILT_IN = [entry["name"] for entry in list_recipes()]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_recipes_load_and_say_what_they_are(name: str) -> None:
    entry = next(entry for entry in list_recipes() if entry["name"] == name)
    assert all(len(entry[key]) > 10 for key in ("shows", "cost", "result"))
    assert load_recipe(name).name == name
    assert recipe_text(name).startswith("# shows: ")


def test_resolved_recipe_reads_back_equal(tmp_path: Path) -> None:
    recipe = load_recipe("align", ["stages.0.train.image.encoder=full"], data="somewhere")
    path = tmp_path / "recipe.yaml"
    path.write_text(resolved_yaml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("1e-3", 0.001), ("2.5E4", 25000.0), (".5", 0.5), ("true", True), ("null", None)]
    + [("1e", "1e"), ("v1.0.2", "v1.0.2"), ("[1, 2]", [1, 2]), ("-7", -7), ("1.", 1.0), ("", None)],
)
def test_values_as_people_write_them(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("stages.0.epoch=3", ["stages.0.epoch: unknown key", "did you mean 'epochs'?"]),
        ("stages.0.epochs=many", ["stages.0.epochs: 'many'", "integer"]),
        ("stages.0.epochs='3'", ["stages.0.epochs: '3'", "integer"]),
        ("stages.0.batch_size=true", ["stages.0.batch_size", "integer"]),
        ("stages.0.epochs=0", ["stages.0.epochs: 0", "greater than or equal to 1"]),
        ("stages.0.features.cache=maybe", ["stages.0.features.cache: 'maybe'", "'auto'"]),
        ("data.texts=alll", ["data.texts: 'alll'", "did you mean 'all'?"]),
        ("stages.0.train.image.encoder=forzen", ["did you mean 'frozen'?"]),
        ("stages.0.train.imag.encoder=full", ["did you mean 'image.encoder'?"]),
        ("stages.0.train.text.projection=lora", ["LoRA is for encoders"]),
        ("stages.0.tasks.0.objective=sigmoid", ["needs a bias", "model.bias"]),
        ("stages.0.tasks.0.modalities=[image, txt]", ["did you mean 'text'?"]),
        ("stages.0.tasks.0.modalities=[text, text]", ["two different modalities"]),
        ("stages.0.steps=10", ["either epochs or steps, both given"]),
        ("stages.0.epochs=null", ["either epochs or steps, neither given"]),
        ("stages.0.chunk=1024", ["stages.0.chunk", "larger than the batch_size"]),
        ("stages.0.schedule.warmup=1.5", ["neither a share below 1 nor a whole number"]),
        ("stages.0.features.slots=4", ["features.augment"]),
        ("stages.0.features.augment=[{kind: flip}]", ["slots above 1"]),
        ("stages.0.augment=[{kind: flip}]", ["features.augment with features.slots"]),
        ("model.towers.image.encoder=scratch/cnn", ["random weights and no stage trains it"]),
        ("model.towers.smell.encoder=pkg/nose", ["model.towers.smell", "not a modality"]),
        ("model.temperature.init=0.001", ["not between 1 / max_scale = 0.01 and 1"]),
        ("evaluation.metric=recall", ["'recall' is not measured", "mean_recall"]),
        ("stages.3.epochs=1", ["stages is a list: its entries are stages.0"]),
        ("seed.x=1", ["seed is 0 and holds nothing further"]),
        ("epochs", ["PATH=VALUE"]),
        ("seed=[1", ["is not a YAML value"]),
    ],
)
def test_every_fault_is_named_with_its_place(setting: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("align", [setting])
    message = str(caught.value)
    assert message.startswith(f"--set {setting}")
    for word in words:
        assert word in message


def test_faults_in_a_file_name_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (
        recipe_text("align")
        .replace("dim: 256", "dims: 256")
        .replace("batch_size: 512", "batch_size: x")
    )
    path.write_text(text, encoding="utf-8")
    lines = text.splitlines()
    dims = next(n for n, line in enumerate(lines, 1) if "dims:" in line)
    batch = next(n for n, line in enumerate(lines, 1) if "batch_size:" in line)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path}, line {dims}: model.dims: unknown key; did you mean 'dim'?")
    assert second.startswith(f"{path}, line {batch}: stages.0.batch_size: 'x'")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: a\nname: b\n", ["line 2", "given twice"]),
        (b"name: [\n", ["not valid YAML"]),
        (b"- a\n", ["a recipe is a mapping"]),
        (b"", ["a recipe is a mapping"]),
        (b"name: \xff\n", ["not UTF-8"]),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        parse_yaml(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_missing_keys_are_named() -> None:
    with pytest.raises(RecipeError, match=r"model: is missing\n.*stages: is missing"):
        check({"name": "x"})


def test_overrides_reach_lists_and_dotted_parts() -> None:
    recipe = load_recipe(
        "align",
        [
            "stages[0].epochs=7",
            "stages.0.train.image.encoder.mode=full",
            "stages.0.train.image.encoder.lr=1e-5",
            "stages.0.train.text.projection={mode: full, lr: 2e-3}",
            "model.temperature.init=0.05",
        ],
        data="mine",
    )
    stage = recipe.stages[0]
    assert stage.epochs == 7
    assert (stage.part("image.encoder").mode, stage.part("image.encoder").lr) == ("full", 1e-5)
    assert stage.part("text.encoder").mode == "frozen"
    assert stage.part("text.projection").lr == 2e-3
    assert recipe.model.temperature.init == 0.05
    assert recipe.data.source == "mine"


def test_unknown_recipes() -> None:
    with pytest.raises(RecipeError, match="did you mean 'align'"):
        load_recipe("aling")
    with pytest.raises(RecipeError, match=r"no recipe file nowhere/x\.yaml"):
        load_recipe("nowhere/x.yaml")
