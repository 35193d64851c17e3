"""Towers that share layers: what a recipe may ask, and one run from training to loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import plait
from plait.core.errors import Interrupted, ModelError, RecipeError
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.kinds import Model
from plait.models.store.shared_layers import parameter_count, shared_layers
from plait.models.store.storage import load_model
from plait.training.build import build
from plait.training.build.init_from import start_from
from plait.training.loop.average import WeightAverage
from plait.training.loop.loop import StageLoop, trained_tensors
from plait.training.loop.optimise import build_optimiser, parameter_groups
from plait.training.recipe.schema import Recipe
from plait.training.run.checkpoint import latest_checkpoint
from plait.training.run.run import train
from plait.training.run.run_folder import RunFolder

LAYERS = {"width": 8, "layers": 2, "heads": 2}
IMAGE = "towers.image.encoder.blocks.0.mlp.up.weight"
TEXT = "towers.text.encoder.blocks.0.mlp.up.weight"
BLOCK = 12 * 8**2 + 13 * 8


@pytest.fixture
def sharing(tiny: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """The tiny recipe with two transformers whose first blocks are one."""

    def load(*overrides: str) -> Recipe:
        image = {"image_size": 16, "patch_size": 8, **LAYERS}
        text = {"max_length": 40, **LAYERS}
        return tiny(
            "model.towers.image.encoder=scratch/vit",
            f"model.towers.image.options={image}",
            f"model.towers.text.options={text}",
            "model.shared_layers=1",
            "stages.0.epochs=1",
            *overrides,
        )

    return load


def built(recipe: Recipe) -> Model:
    model = build.build_model(recipe)
    build.prepare_stage(model, recipe, 0)
    return model


def test_a_run_from_training_to_loading(sharing: Callable[..., Recipe], tmp_path: Path) -> None:
    result = train(sharing(), out=tmp_path / "run")
    model = plait.load(tmp_path / "run")
    assert shared_layers(model) == 1
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert IMAGE in saved and TEXT not in saved
    assert sum(value.numel() for value in saved.values()) == parameter_count(model)
    (checkpoint,) = [latest_checkpoint(tmp_path / "run")]
    assert checkpoint is not None
    assert set(checkpoint.under("model")) == set(saved)
    trained = build.build_model(sharing())
    trained.load_state_dict(checkpoint.under("model"), strict=False)
    pictures = [np.full((16, 16, 3), shade, np.uint8) for shade in (20, 120, 240)]
    texts = ["red", "a picture of blue, 3"]
    one, other = (m.eval().embed(pictures, texts) for m in (trained, model))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not torch.equal(saved[IMAGE], build.build_model(sharing()).state_dict()[IMAGE])
    told = result.to_json()["savings"]["layers"]
    assert told["together"]["parameters"] == parameter_count(model)
    assert "## What sharing saves" in (tmp_path / "run" / "report.md").read_text()
    assert 'id="savings"' in (tmp_path / "run" / "report.html").read_text()


def test_a_stopped_run_goes_on_bitwise(
    sharing: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an average of the weights, and a second stage that finds what the first has trained."""
    more = ("stages.0.ema=0.9", "stages.0.epochs=null", "stages.0.steps=3", "checkpoints.steps=1")
    recipe = sharing(*more)
    second = recipe.stages[0].model_copy(update={"name": "again"})
    recipe = recipe.model_copy(update={"stages": [*recipe.stages, second]})
    train(recipe, out=tmp_path / "whole")
    original, stops = StageLoop._save_if_due, [2, 5]

    def stop(self: StageLoop) -> None:
        original(self)
        if stops and self.position.run_step == stops[0]:
            raise Interrupted(f"after {stops.pop(0)}")

    monkeypatch.setattr(StageLoop, "_save_if_due", stop)
    for resume in (False, True):
        with pytest.raises(Interrupted):
            train(recipe, out=tmp_path / "broken", resume=resume)
    found = latest_checkpoint(tmp_path / "broken")
    assert found is not None
    assert TEXT not in found.under("model") and f"{IMAGE}/exp_avg" in found.under("optimiser")
    assert not [name for name in found.tensors if name.endswith(TEXT)]
    train(recipe, out=tmp_path / "broken", resume=True)
    one, other = (load_model(tmp_path / name).state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_shared_weight_is_optimised_averaged_and_counted_once(
    sharing: Callable[..., Recipe],
) -> None:
    recipe = sharing()
    model = built(recipe)
    assert isinstance(model, AlignmentModel)
    groups = parameter_groups(model, recipe.stages[0])
    names = [name for group in groups for name in group["names"]]  # type: ignore[attr-defined]
    assert IMAGE in names and TEXT not in names and len(names) == len(set(names))
    assert set(WeightAverage(model, 0.9).parameters) == set(names)
    assert set(trained_tensors(model)) == set(names)
    optimiser = build_optimiser(groups, recipe.stages[0].optimiser)
    weight = model.get_parameter(IMAGE)
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimiser.step()
    # Adam's first step is the learning rate, whatever the gradient; twice it would be the double.
    rate = recipe.stages[0].optimiser.lr
    torch.testing.assert_close(before - weight, torch.full_like(weight, rate), rtol=1e-4, atol=0)
    assert torch.equal(model.state_dict()[TEXT], weight)


def test_the_gradient_norm_counts_a_shared_weight_once(
    sharing: Callable[..., Recipe], tmp_path: Path
) -> None:
    train(sharing(), out=tmp_path / "run")
    first = next(r for r in RunFolder(tmp_path / "run").records() if r["kind"] == "update")
    squares = sum(norm**2 for norm in first["part_norms"].values())
    assert first["grad_norm"] ** 2 == pytest.approx(squares, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["stages.0.train.text.encoder=frozen"],
            "mode of text.encoder is frozen, of image.encoder",
        ),
        (
            ["stages.0.train.text.encoder.mode=full", "stages.0.train.text.encoder.lr=1e-4"],
            "lr of text.encoder is 0.0001, of image.encoder that of the stage; make them equal",
        ),
        (["stages.0.train.image.encoder=lora"], "LoRA cannot adapt layers that towers share"),
        (["model.towers.text.encoder=pkg/minilm-l6"], "would lose the lower part of what it has"),
        (
            [
                "model.kind=fusion",
                "model.fusion=visual_bert",
                "stages.0.tasks=[{objective: match}]",
            ],
            "visual_bert embeds texts itself",
        ),
        (["model.shared_layers=-1"], "model.shared_layers"),
    ],
)
def test_recipes_that_cannot_be(
    sharing: Callable[..., Recipe], settings: list[str], words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        sharing(*settings)
    assert words in str(caught.value)


def test_frozen_alike_is_allowed(sharing: Callable[..., Recipe], tmp_path: Path) -> None:
    train(sharing(), out=tmp_path / "first")
    recipe = sharing(
        f"model.init_from={tmp_path / 'first'}",
        "stages.0.train.image.encoder=frozen",
        "stages.0.train.text.encoder=frozen",
    )
    result = train(recipe, out=tmp_path / "second")
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("first", "second"))
    assert torch.equal(one[IMAGE], other[IMAGE])
    assert f"{len(one)} tensors loaded, 0 new, 0 left over" in result.notes[0]


def test_starting_from_a_run_that_shares_otherwise(
    sharing: Callable[..., Recipe], tmp_path: Path
) -> None:
    for name, count in (("shared", 1), ("apart", 0)):
        train(sharing(f"model.shared_layers={count}"), out=tmp_path / name)
    shared, apart = (load_file(tmp_path / n / "model.safetensors") for n in ("shared", "apart"))

    model = build.build_model(sharing("model.shared_layers=0"))
    account = start_from(model, tmp_path / "shared")
    state = model.state_dict()
    assert torch.equal(state[IMAGE], shared[IMAGE]) and torch.equal(state[TEXT], shared[IMAGE])
    assert not account.new and not account.left

    model = build.build_model(sharing())
    with pytest.raises(ModelError) as caught:
        start_from(model, tmp_path / "apart")
    block = "towers.text.encoder.blocks.0"
    assert "is shared here, and differs from 'towers.image.encoder.blocks.0." in str(caught.value)
    account = start_from(model, tmp_path / "apart", [block])
    assert torch.equal(model.state_dict()[TEXT], apart[IMAGE])
    assert account.left and all(name.startswith(block) for name in account.left)
    assert not account.new


def test_sharing_more_than_there_is(sharing: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="image tower has only 2 of them"):
        train(sharing("model.shared_layers=3"), out=tmp_path / "run")


def test_the_whole_of_both_towers_may_be_shared(sharing: Callable[..., Recipe]) -> None:
    sizes: list[Any] = [
        parameter_count(build.build_model(sharing(f"model.shared_layers={k}"))) for k in range(3)
    ]
    assert [sizes[0] - size for size in sizes] == [0, BLOCK, 2 * BLOCK]
