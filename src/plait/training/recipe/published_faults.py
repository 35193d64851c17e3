"""What a recipe cannot ask of a published model that it trains on (`plait.training.run.finetuning`)."""

from __future__ import annotations

from collections.abc import Iterator

from plait.core.modality import IMAGE, TEXT
from plait.training.recipe.model import PUBLISHED, Model, Tower
from plait.training.recipe.schema import Recipe

Fault = tuple[tuple[str | int, ...], str]

_OWN = ("dim", "temperature", "bias", "shared_layers", "fusion", "init_from")
"""Keys of the model that the published one decides, or that contradict it."""


def published_faults(recipe: Recipe) -> Iterator[Fault]:
    """Towers or sizes beside those of the published model, and choices without a start."""
    model = recipe.model
    whole = [name for name, tower in model.towers.items() if tower.encoder == PUBLISHED]
    if not whole:
        if model.published is not None:
            yield (
                ("model", "published"),
                "brings towers of its own, and this recipe has others: take the recipe "
                "finetune-clip, or name one as an encoder (clip/FOLDER)",
            )
        yield from _without_start(recipe)
        return
    if model.kind != "alignment" or set(whole) != {IMAGE, TEXT} or len(model.towers) != 2:
        yield (
            ("model", "towers"),
            "a published model is an alignment model of image and text: both towers are "
            "'published', or none",
        )
    for name in whole:
        if model.towers[name] != Tower(encoder=PUBLISHED):
            yield (
                ("model", "towers", name),
                "a published tower is taken as it is: it has no options or projection to set",
            )
    for key in _OWN:
        found, default = getattr(model, key), Model.model_fields[key].default
        # Of the temperature, whether it learns is the recipe's business.
        if key == "temperature":
            found = found.model_copy(update={"learn": default.learn})
        if found != default:
            yield ("model", key), "is the published model's own: leave it out"
    if model.wise_ft is not None and recipe.evaluation.metric == "loss":
        yield (
            ("evaluation", "metric"),
            "of wise_ft is a share of right answers (mean_recall, text_to_image.R@1, ...), not the "
            "loss",
        )


def _without_start(recipe: Recipe) -> Iterator[Fault]:
    if recipe.model.wise_ft is not None:
        yield (
            ("model", "wise_ft"),
            "mixes fine-tuned weights with published ones: set model.published, or leave it out",
        )
    for number, stage in enumerate(recipe.stages):
        for place, task in enumerate(stage.tasks):
            if task.objective == "published":
                yield (
                    ("stages", number, "tasks", place, "objective"),
                    "is that of a published model: set model.published, or take info_nce or sigmoid",
                )
