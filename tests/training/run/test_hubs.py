"""Runs with a correction for hubs: filled, measured, saved, the same again, found by an index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plait.core.errors import Interrupted, RecipeError
from plait.core.files import read_json
from plait.data import open_dataset
from plait.engines.features import embed_dataset
from plait.evaluation import evaluate_alignment
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.storage import load_model
from plait.retrieval import build_index, open_index
from plait.training.recipe.recipe import load_recipe
from plait.training.recipe.schema import Recipe
from plait.training.run.run import train

Tiny = Callable[..., Recipe]
HUBS = "model.hubs={neighbours: 5, strength: 0.5, bank: 20}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))


def loaded(run: Path) -> AlignmentModel:
    model = load_model(run)
    assert isinstance(model, AlignmentModel)
    return model


def test_a_run_from_training_to_search(tiny: Tiny, tmp_path: Path, colours: Path) -> None:
    run = tmp_path / "run"
    result = train(tiny(HUBS, "evaluation.test=test"), out=run)
    assert result.metrics["retrieval"] and result.metrics["retrieval_plain"]
    assert "hubs" in result.seconds
    dataset, model = open_dataset(str(colours)), loaded(run)
    again = evaluate_alignment(model, dataset, split="test", engine="torch")
    assert again == result.metrics
    assert model.hubs is not None
    assert (model.hubs.neighbours, model.hubs.strength) == (5, 0.5)
    for part in ("report.html", "report.md"):
        assert "corrected for hubs" in (run / part).read_text(encoding="utf-8")
    # each row of a bank is a picture or a text of the training split
    found = embed_dataset(model, dataset.split("train"), engine="torch")
    for name in ("image", "text"):
        bank = model.hubs.bank(name).numpy()
        assert bank.shape == (20, 8)
        nearest = np.abs(bank[:, None] - getattr(found, name)).max(axis=2).min(axis=1)
        assert nearest.max() < 1e-6
    test = dataset.split("test")
    build_index(model, test, tmp_path / "index", run=run, engine="torch")
    rows = model.embed(images=[s.image for s in test], texts=["red number 3"])
    scores = rows["image"] @ rows["text"][0] - model.hubs.bias("image", rows["image"], "text")
    for query in ("red number 3", rows["text"][0]):  # as `plait search` and the demo ask
        hits = open_index(tmp_path / "index").search(query, k=len(test))
        np.testing.assert_allclose([h["score"] for h in hits], -np.sort(-scores), atol=5e-3)


def test_stopped_and_resumed_has_the_same_correction(tiny: Tiny, tmp_path: Path) -> None:
    def fail(model: Any, dataset: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    recipe = tiny(HUBS, "evaluation.test=test", "stages.0.epochs=1")
    with pytest.raises(Interrupted, match="--resume"):
        train(recipe, out=tmp_path / "broken", evaluate=fail)
    train(recipe, out=tmp_path / "broken", resume=True, evaluate=lambda model, data: {})
    train(recipe, out=tmp_path / "whole", evaluate=lambda model, data: {})
    one, other = tmp_path / "whole", tmp_path / "broken"
    weights = "model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()
    assert loaded(one).hubs is not None


def test_the_weights_are_those_of_a_run_without(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("stages.0.epochs=1"), out=tmp_path / "plain")
    train(tiny(HUBS, "stages.0.epochs=1"), out=tmp_path / "corrected")
    plain, ours = loaded(tmp_path / "plain"), loaded(tmp_path / "corrected")
    assert plain.hubs is None and read_json(tmp_path / "plain" / "model.json")["version"] == 1
    own = ours.state_dict()
    assert set(own) - set(plain.state_dict()) == {"hubs.bank_image", "hubs.bank_text"}
    for name, value in plain.state_dict().items():
        assert np.array_equal(value.numpy(), own[name].numpy())
    # Another run may start from its weights, with a correction of its own or without.
    result = train(
        tiny(f"model.init_from={tmp_path / 'corrected'}", "stages.0.epochs=1"),
        out=tmp_path / "next",
    )
    assert any("0 new, 0 left over" in note for note in result.notes)
    assert loaded(tmp_path / "next").hubs is None


@pytest.mark.parametrize(
    ("recipe", "setting", "words"),
    [
        ("easy-vqa", "model.hubs={}", "model.hubs: corrects the cosines of alignment models"),
        ("align", "model.hubs={neighbours: 64, bank: 32}", "64 neighbours are more than the bank"),
        ("align", "model.hubs={strength: 1.5}", "less than or equal to 1"),
        ("align", "model.hubs={bank: 4096}", "less than or equal to 2048"),
        ("align", "model.hubs={neighbors: 3}", "did you mean 'neighbours'"),
    ],
)
def test_faults(recipe: str, setting: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, [setting])
    assert words in str(caught.value)


def test_the_demo_has_a_correction() -> None:
    hubs = load_recipe("demo").model.hubs
    assert hubs is not None and (hubs.neighbours, hubs.strength, hubs.bank) == (64, 0.75, 2048)
    assert load_recipe("align").model.hubs is None
