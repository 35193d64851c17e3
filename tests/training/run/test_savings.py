"""What sharing saves, against networks that are built apart and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from plait.core.batch import Batch, ModalityInput
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.fusion.model import FusionModel
from plait.models.store.files import weights_fingerprint
from plait.models.store.kinds import Model
from plait.models.store.shared_layers import parameter_count
from plait.training.build.build import build_model
from plait.training.recipe.recipe import check
from plait.training.recipe.schema import Recipe
from plait.training.run.savings import savings

LAYERS = {"width": 8, "layers": 2, "heads": 2}
BLOCK = 12 * 8**2 + 13 * 8
TENSORS = 12  # weight and bias of two norms and four linear layers
TEXTS = ["a red one", "blue", "green, green", "grey"]
LABELS = {"answer": ["yes", "no", "red"], "classify": ["odd", "even"]}


def recipe_of(tasks: list[str], **changes: Any) -> Recipe:
    fusion = {"kind": "fusion", "fusion": "concat"} if "info_nce" not in tasks else {}
    stage = {
        "tasks": [{"objective": name} for name in tasks],
        "train": {"image.encoder": "full", "text.encoder": "full"},
        "steps": 1,
        "batch_size": 4,
        "precision": "float32",
        "sampling": changes.pop("sampling", "together"),
    }
    towers = {
        "image": {
            "encoder": "scratch/vit",
            "options": {"image_size": 16, "patch_size": 8, **LAYERS},
        },
        "text": {"encoder": "scratch/transformer", "options": {"max_length": 16, **LAYERS}},
    }
    model = {"dim": 8, "towers": towers, **fusion, **changes}
    return check({"name": "tiny", "model": model, "stages": [stage]})


def model_of(recipe: Recipe) -> Model:
    names = {task.objective for task in recipe.stages[-1].tasks}
    return build_model(recipe, (), {name: LABELS[name] for name in LABELS if name in names})


def batch_for(model: Model) -> Callable[[], Batch]:
    preprocess = model.tower("text").encoder.preprocess
    assert isinstance(preprocess, TextPreprocess)
    ids, mask = preprocess(TEXTS)
    modalities = {
        "image": ModalityInput.of(pixels=torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)),
        "text": ModalityInput.of(mask=torch.from_numpy(mask), ids=torch.from_numpy(ids)),
    }
    targets = {"answer": torch.tensor([0, 1, 2, 0]), "label": torch.tensor([0, 1, 0, 1])}
    return lambda: Batch(["a", "b", "c", "d"], torch.arange(4), modalities, targets)


def measured(recipe: Recipe) -> tuple[Model, Mapping[str, Any]]:
    model = model_of(recipe).eval()
    before = weights_fingerprint(model)
    found = savings(model, recipe, batch_for(model), Accelerator(cpu=True))
    assert weights_fingerprint(model) == before
    assert not model.training and all(p.grad is None for p in model.parameters())
    return model, found


@pytest.mark.parametrize("kind", ["info_nce", "answer"])
@pytest.mark.parametrize("count", [1, 2])
def test_shared_layers_save_their_parameters_and_moments(kind: str, count: int) -> None:
    model, found = measured(recipe_of([kind], shared_layers=count))
    together, apart = found["layers"]["together"], found["layers"]["apart"]
    whole = parameter_count(model_of(recipe_of([kind])))
    assert together["parameters"] == parameter_count(model)
    assert apart["parameters"] == whole == together["parameters"] + count * BLOCK
    assert found["layers"]["saved_percent"] == pytest.approx(100 * count * BLOCK / whole, abs=0.01)
    # Adam keeps two moments of each number and a count of steps for each tensor, in float32.
    memory = apart["optimiser_bytes"] - together["optimiser_bytes"]
    assert memory == count * (2 * BLOCK + TENSORS) * 4
    for cost in (together, apart):
        low, high = cost["update_seconds_low"], cost["update_seconds_high"]
        assert 0 < low <= cost["update_seconds"] <= high
    assert found["layers"]["rows"] == 4 and found["layers"]["blocks"] == count
    assert "tasks" not in found


def test_several_tasks_save_the_networks_of_all_but_one() -> None:
    names = ["answer", "classify", "match"]
    model, found = measured(recipe_of(names))
    assert isinstance(model, FusionModel)
    single = [parameter_count(model_of(recipe_of([name]))) for name in names]
    together, apart = found["tasks"]["together"], found["tasks"]["apart"]
    assert together["parameters"] == parameter_count(model)
    assert apart["parameters"] == sum(single)
    assert apart["optimiser_bytes"] > 2.5 * together["optimiser_bytes"]
    for cost in (together, apart):
        assert 0 < cost["update_seconds_low"] <= cost["update_seconds"]
    assert found["tasks"]["names"] == names and "layers" not in found


def test_layers_and_tasks_at_once() -> None:
    _, found = measured(recipe_of(["answer", "match"], shared_layers=1))
    shared, one = found["layers"]["together"], found["tasks"]["together"]
    assert shared["parameters"] == one["parameters"]


def test_an_update_of_one_task_is_not_set_against_several() -> None:
    _, found = measured(recipe_of(["answer", "match"], sampling="round_robin"))
    assert set(found["tasks"]["together"]) == set(found["tasks"]["apart"]) == {"parameters"}
    assert "rows" not in found["tasks"]


def test_nothing_shared_nothing_measured() -> None:
    recipe = recipe_of(["answer"])

    def refuse() -> Batch:
        raise AssertionError("a batch was made")

    assert savings(model_of(recipe), recipe, refuse, Accelerator(cpu=True)) == {}


def test_heavy_networks_are_measured_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.training.run import savings as module

    alive: list[int] = []
    original = module._measured

    def watched(networks: Any, *rest: Any) -> Any:
        alive.append(len(networks))
        return original(networks, *rest)

    monkeypatch.setattr(module, "_measured", watched)
    _, light = measured(recipe_of(["answer", "match"]))
    monkeypatch.setattr(module, "LIGHT", 100)
    _, heavy = measured(recipe_of(["answer", "match"]))
    assert alive == [3, 1, 1, 1]
    memory = [found["tasks"]["apart"]["optimiser_bytes"] for found in (light, heavy)]
    assert memory[0] == memory[1]
