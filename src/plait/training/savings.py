"""What one network saves against several: towers that share layers, tasks that share a model.

Counted in parameters, and measured: the optimiser's memory and the time of one update, on copies
that train as the last stage does, on a batch of it. One copy at a time, so that the memory of
training is enough for it.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plait.core.batch import Batch
from plait.models.fusion_model import FusionModel
from plait.models.kinds import Model
from plait.models.shared_layers import parameter_count, separated, shared_layers
from plait.training import build
from plait.training.checkpoint import seed_update
from plait.training.optimise import optimiser_tensors
from plait.training.schema import Recipe
from plait.training.updating import updater_of

UPDATES = 5  # measured of each network, after one that warms up
SECONDS = 0.3  # after which no further one is begun

HEAD_OF: Mapping[str, str] = {"wra": "match"}
"""The head of a task, where it isn't called as the task is."""


@dataclass(frozen=True)
class Cost:
    """What a network, or several in turn, cost.

    Attributes:
        parameters: numbers that are stored.
        optimiser_bytes: the optimiser's state; None where nothing was measured.
        update_seconds: median time of one update of each network, added up; None likewise.
    """

    parameters: int
    optimiser_bytes: int | None = None
    update_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For ``report.json``: what was measured."""
        found = vars(self)
        return {name: value for name, value in found.items() if value is not None}


def savings(
    model: Model, recipe: Recipe, batch: Callable[[], Batch], accelerator: Any
) -> dict[str, Any]:
    """What a trained model saves; empty where its towers share nothing and its tasks are one.

    Args:
        model: after the last stage; it stays as it is.
        recipe: it was trained by.
        batch: gives a batch of the last stage.
        accelerator: device and processes. Of several processes one alone may call, so that nothing
            is measured.

    Returns:
        ``layers`` and ``tasks``, as far as they apply: each with the cost ``together`` and
        ``apart``, ``saved_percent`` of the parameters, and the ``rows`` of what was measured.
    """
    stage = recipe.stages[-1]
    several = isinstance(model, FusionModel) and len(stage.tasks) > 1
    if not shared_layers(model) and not several:
        return {}
    shown = batch() if accelerator.num_processes == 1 else None
    found = {}
    if shared_layers(model):
        costs = [_cost([one], [recipe], shown, accelerator) for one in (model, separated(model))]
        about = {"blocks": shared_layers(model), "towers": list(model.modalities)}
        found["layers"] = {**about, **_compared(*costs, shown)}
    if several:
        assert isinstance(model, FusionModel)
        names = [task.objective for task in stage.tasks]
        if stage.sampling != "together":  # an update trains one task, in one network or in several
            shown = None
        apart = _cost([model] * len(names), _single_tasks(recipe), shown, accelerator)
        apart = Cost(_counted_apart(model, names), apart.optimiser_bytes, apart.update_seconds)
        costs = [_cost([model], [recipe], shown, accelerator), apart]
        found["tasks"] = {"names": names, **_compared(*costs, shown)}
    return found


def _compared(together: Cost, apart: Cost, shown: Batch | None) -> dict[str, Any]:
    saved = 100 * (1 - together.parameters / apart.parameters)
    return {
        "together": together.to_json(),
        "apart": apart.to_json(),
        "saved_percent": round(saved, 2),
        **({} if shown is None else {"rows": len(shown)}),
    }


def _counted_apart(model: FusionModel, tasks: Sequence[str]) -> int:
    """Parameters of a network for each task: encoders and fusion every time, its own head."""
    trunk = parameter_count(model) - parameter_count(model.heads)
    heads = [HEAD_OF.get(name, name) for name in tasks]
    own = [parameter_count(model.heads[name]) for name in heads if name in model.heads]
    return trunk * len(tasks) + sum(own)


def _single_tasks(recipe: Recipe) -> list[Recipe]:
    """The recipe with each task of its last stage alone."""
    *before, last = recipe.stages
    return [
        recipe.model_copy(
            update={"stages": [*before, last.model_copy(update={"tasks": [t], "balance": "fixed"})]}
        )
        for t in last.tasks
    ]


def _cost(
    models: Sequence[Model], recipes: Sequence[Recipe], shown: Batch | None, accelerator: Any
) -> Cost:
    parameters = sum(parameter_count(model) for model in models)
    if shown is None:
        return Cost(parameters)
    measured = [_measure(*pair, shown, accelerator) for pair in zip(models, recipes, strict=True)]
    sizes, times = zip(*measured, strict=True)
    return Cost(parameters, sum(sizes), sum(times))


def _measure(model: Model, recipe: Recipe, shown: Batch, accelerator: Any) -> tuple[int, float]:
    """(bytes of the optimiser's state, median seconds of an update) of a copy that trains."""
    number = len(recipe.stages) - 1
    copied = copy.deepcopy(model)
    build.prepare_stage(copied, recipe, number)
    copied.to(accelerator.device).train()
    updater = updater_of(copied, recipe.stages[-1], accelerator)
    shown = shown.to(accelerator.device)
    times: list[float] = []
    for step in range(UPDATES + 1):
        seed_update(recipe.seed, number, step)
        start = time.perf_counter()
        updater(shown, 1.0)
        times.append(time.perf_counter() - start)
        if len(times) > 1 and sum(times[1:]) > SECONDS:
            break
    state = optimiser_tensors(updater.optimiser).values()
    return sum(value.numel() * value.element_size() for value in state), statistics.median(
        times[1:]
    )
