"""The float models that a search may take: students, pruned models, and the run as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plait.compression.cost import model_cost
from plait.compression.settings import Settings
from plait.compression.students import heal, pruned_model, student_recipe
from plait.core.errors import UserError
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.kinds import aligned
from plait.models.store.storage import load_model
from plait.training.build.build import build_model
from plait.training.recipe.schema import Recipe
from plait.training.run.run import train

Tell = Callable[[str], None]
Samples = Mapping[str, Sequence[Mapping[str, np.ndarray]]]


@dataclass(frozen=True)
class FloatCandidate:
    """A float model that can be made.

    Attributes:
        name: for people.
        multiply_adds: of one picture and one text; an estimate until it is made.
        make: the model, and its folder.
    """

    name: str
    multiply_adds: int
    make: Callable[[], tuple[AlignmentModel, Path]]


def float_candidates(
    run: Path,
    model: AlignmentModel,
    recipe: Recipe | None,
    settings: Settings,
    samples: Samples,
    data: str | None,
    work: Path,
    tell: Tell,
) -> list[FloatCandidate]:
    """The candidates that are asked for, the cheapest first, and the run itself last.

    Raises:
        UserError: training is asked for and the run has no recipe.
    """
    first = {name: rows[0] for name, rows in samples.items()}
    whole = sum(model_cost(model, first).values())
    found = []
    for number, source in enumerate(settings.students):
        made = student_recipe(source, recipe, run, data, settings.overrides)
        cost = sum(model_cost(_untrained(made), None).values())
        folder = work / f"student{number}"
        found.append(FloatCandidate(f"student {source}", cost, _taught(made, folder, tell)))
    for fraction in settings.prune:
        if recipe is None:
            raise UserError(f"--prune: {run} has no recipe that says what to heal it with")
        if data is not None:
            section = recipe.data.model_copy(update={"source": data})
            recipe = recipe.model_copy(update={"data": section})
        make = _pruned(run, model, recipe, fraction, settings, samples, work, tell)
        found.append(FloatCandidate(f"pruned by {fraction:g}", int((1 - fraction) * whole), make))
    found.sort(key=lambda one: one.multiply_adds)
    return [*found, FloatCandidate("as trained", whole, lambda: (model, run))]


def _untrained(recipe: Recipe) -> AlignmentModel:
    """The architecture of a student. A tokenizer to be trained has some words alone here."""
    return aligned(build_model(recipe, ["a picture of it", "one", "two"]), "a student")


def _taught(recipe: Recipe, folder: Path, tell: Tell) -> Callable[[], tuple[AlignmentModel, Path]]:
    def make() -> tuple[AlignmentModel, Path]:
        tell(f"training {recipe.name}")
        train(recipe, out=folder)
        return aligned(load_model(folder), "a student"), folder

    return make


def _pruned(
    run: Path,
    model: AlignmentModel,
    recipe: Recipe,
    fraction: float,
    settings: Settings,
    samples: Samples,
    work: Path,
    tell: Tell,
) -> Callable[[], tuple[AlignmentModel, Path]]:
    def make() -> tuple[AlignmentModel, Path]:
        tell(f"pruning by {fraction:g}")
        cut = pruned_model(model, fraction, samples, tell)
        folder = work / f"pruned{fraction:g}"
        if settings.heal_steps:
            tell(f"healing for {settings.heal_steps} steps")
        done = heal(
            cut, recipe, run, folder, steps=settings.heal_steps, overrides=settings.overrides
        )
        return aligned(load_model(done), "a pruned model"), done

    return make


def told(candidate: FloatCandidate, **more: Any) -> dict[str, Any]:
    """For the report."""
    return {"name": candidate.name, "multiply_adds": candidate.multiply_adds, **more}
