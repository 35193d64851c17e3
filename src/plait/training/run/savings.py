"""What one network saves against several: towers that share layers, tasks that share a model.

Counted in parameters, and measured: the optimiser's memory and the time of one update, on copies
that train as the last stage does, on a batch of it.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plait.core.batch import Batch
from plait.models.fusion.model import FusionModel
from plait.models.store.kinds import Model
from plait.models.store.shared_layers import parameter_count, separated, shared_layers
from plait.training.build import build
from plait.training.build.updating import updater_of
from plait.training.loop.optimise import optimiser_tensors
from plait.training.loop.seeding import seed_update
from plait.training.loop.update import Updater
from plait.training.recipe.schema import Recipe

FEWEST, MOST = 3, 7  # rounds of updates that are measured, after one that warms up
SECONDS = 1.0  # after which no further round than the fewest is begun
LIGHT = 30_000_000  # parameters of networks that are measured in turn; heavier ones one at a time

HEAD_OF: Mapping[str, str] = {"wra": "match"}
"""The head of a task, where it isn't called as the task is."""


@dataclass(frozen=True)
class Cost:
    """What a network, or several together, cost.

    Attributes:
        parameters: numbers that are stored.
        optimiser_bytes: the optimiser's state; None where nothing was measured.
        update_seconds: median time of one update of each network, added up; None likewise.
        update_seconds_low, update_seconds_high: likewise the fastest and the slowest.
    """

    parameters: int
    optimiser_bytes: int | None = None
    update_seconds: float | None = None
    update_seconds_low: float | None = None
    update_seconds_high: float | None = None

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
        both = [(model, recipe), (separated(model), recipe)]
        costs = _costs(both, shown, accelerator)
        about = {"blocks": shared_layers(model), "towers": list(model.modalities)}
        found["layers"] = {**about, **_compared(costs[0], costs[1], shown)}
    if several:
        assert isinstance(model, FusionModel)
        names = [task.objective for task in stage.tasks]
        if stage.sampling != "together":  # an update trains one task, in one network or in several
            shown = None
        each = [(model, single) for single in _single_tasks(recipe)]
        together, *costs = _costs([(model, recipe), *each], shown, accelerator)
        apart = _summed(_counted_apart(model, names), costs)
        found["tasks"] = {"names": names, **_compared(together, apart, shown)}
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


def _summed(parameters: int, costs: Sequence[Cost]) -> Cost:
    known = [cost.to_json() for cost in costs]
    names = [name for name in known[0] if name != "parameters"]
    return Cost(parameters, **{name: sum(cost[name] for cost in known) for name in names})


def _costs(
    networks: Sequence[tuple[Model, Recipe]], shown: Batch | None, accelerator: Any
) -> list[Cost]:
    """The cost of each network.

    Light ones update in turn, so that whatever else the machine does meets all of them. Heavier ones
    are measured one after the other, in the memory that training had.
    """
    counts = [parameter_count(model) for model, _ in networks]
    if shown is None:
        return [Cost(count) for count in counts]
    groups = [networks] if sum(counts) <= LIGHT else [[network] for network in networks]
    measured = [found for group in groups for found in _measured(group, shown, accelerator)]
    return [
        Cost(count, size, statistics.median(times), min(times), max(times))
        for count, (size, times) in zip(counts, measured, strict=True)
    ]


def _measured(
    networks: Sequence[tuple[Model, Recipe]], shown: Batch, accelerator: Any
) -> list[tuple[int, list[float]]]:
    """(bytes of the optimiser's state, seconds of each measured update) of copies that train."""
    shown = shown.to(accelerator.device)
    updaters = [_updater(*network, accelerator) for network in networks]
    times: list[list[float]] = [[] for _ in updaters]
    begun = 0.0
    for number in range(MOST + 1):
        for updater, own in zip(updaters, times, strict=True):
            seed_update(0, 0, number)
            start = time.perf_counter()
            updater(shown, 1.0)
            own.append(time.perf_counter() - start)
        if number == 0:
            begun = time.perf_counter()
        elif number >= FEWEST and time.perf_counter() - begun > SECONDS:
            break
    return [(_state_bytes(one), own[1:]) for one, own in zip(updaters, times, strict=True)]


def _updater(model: Model, recipe: Recipe, accelerator: Any) -> Updater:
    """Of a copy, in the recipe's last stage."""
    copied = copy.deepcopy(model)
    build.prepare_stage(copied, recipe, len(recipe.stages) - 1)
    copied.to(accelerator.device).train()
    return updater_of(copied, recipe.stages[-1], accelerator)


def _state_bytes(updater: Updater) -> int:
    state = optimiser_tensors(updater.optimiser).values()
    return sum(value.numel() * value.element_size() for value in state)
