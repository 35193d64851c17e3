"""What is wrong in a recipe of a drawing model although every key and type is right."""

from __future__ import annotations

from collections.abc import Iterator

from plait.core.errors import did_you_mean
from plait.training.recipe.schema import Recipe
from plait.training.recipe.stage import AT_REST, Stage

Fault = tuple[tuple[str | int, ...], str]


def drawing_faults(recipe: Recipe) -> Iterator[Fault]:
    """Of the model."""
    from plait.models.drawing.attention import KINDS  # loads torch, which other recipes need later

    model = recipe.model
    if model.towers:
        yield ("model", "towers"), "a drawing model has no towers: leave them out"
    if model.drawing is None:
        yield ("model", "drawing"), "a model of kind drawing needs it: see `plait recipes draw`"
        return
    for number, kind in enumerate(model.drawing.transformer.kinds):
        if kind not in KINDS:
            yield (
                ("model", "drawing", "transformer", "kinds", number),
                f"no attention kind {kind!r}{did_you_mean(kind, KINDS)} (known: {', '.join(KINDS)})",
            )
    objectives = [task.objective for stage in recipe.stages for task in stage.tasks]
    if "draw" in objectives and model.init_from is None and "dvae" not in objectives:
        yield (
            ("stages", 0, "tasks", 0, "objective"),
            "codes are drawn of a discrete VAE that no stage trains: put a stage with the objective "
            "dvae first, or set model.init_from",
        )


def drawing_stage_faults(stage: Stage) -> Iterator[Fault]:
    """Of a stage: its one task trains one of the two parts."""
    if len(stage.tasks) > 1:
        yield ("tasks",), "a stage of a drawing model has one task"
    if stage.tasks[0].text is not None:
        yield ("tasks", 0, "text"), "belongs to tasks of fusion models: set the stage's text"
    objective = stage.tasks[0].objective
    other = AT_REST.get(objective)
    if other is not None and stage.part(other).mode != "frozen":
        yield ("train", other), f"the objective {objective} doesn't train it: leave it out"
    if stage.features != type(stage.features)():
        yield ("features",), "a drawing model has no frozen encoders: leave it out"
    if objective == "draw" and stage.augment is not None:
        yield (
            ("augment",),
            "the codes of a picture are computed once, so it cannot change every epoch: leave it out",
        )
