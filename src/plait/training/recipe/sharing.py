"""What a recipe cannot ask of towers that share layers (`plait.encoders.compose.sharing`)."""

from __future__ import annotations

from collections.abc import Iterator

from plait.training.recipe.schema import Recipe
from plait.training.recipe.stage import Stage

Fault = tuple[tuple[str | int, ...], str]


def model_faults(recipe: Recipe) -> Iterator[Fault]:
    """Of the model: towers without blocks of their own use, and weights that would be lost."""
    model = recipe.model
    if not model.shared_layers:
        return
    if model.kind == "fusion" and model.fusion is not None:
        from plait.models.systems.registry import SYSTEMS  # loads torch

        if model.fusion.kind in SYSTEMS:
            yield (
                ("model", "shared_layers"),
                f"{model.fusion.kind} embeds texts itself, so there is no text tower to share with: "
                "take a fusion such as concat or co_attention, or set it to 0",
            )
    first = next(iter(model.towers), "")
    for name, tower in model.towers.items():
        if name != first and tower.pretrained and not tower.encoder.startswith("scratch/"):
            yield (
                ("model", "towers", name, "pretrained"),
                f"shared layers start as those of the first tower, {first}, so {tower.encoder} would "
                "lose the lower part of what it has learned: set it to false, or shared_layers to 0",
            )


def stage_faults(recipe: Recipe, stage: Stage) -> Iterator[Fault]:
    """Of a stage: a shared weight trains in one way only, and has no adapters.

    An adapter belongs to one encoder; in a shared block it would change the other as well.
    """
    if not recipe.model.shared_layers:
        return
    parts = {f"{tower}.encoder": stage.part(f"{tower}.encoder") for tower in recipe.model.towers}
    adapted = [name for name, part in parts.items() if part.mode == "lora"]
    for name in adapted:
        yield (
            ("train", name),
            "LoRA cannot adapt layers that towers share (model.shared_layers): set it to full or "
            "frozen",
        )
    if adapted or not parts:
        return
    first = next(iter(parts))
    for name, part in parts.items():
        for key in ("mode", "lr", "weight_decay", "blocks"):
            wanted, found = getattr(parts[first], key), getattr(part, key)
            if found != wanted:
                yield (
                    ("train", name),
                    f"towers that share layers (model.shared_layers) train alike: {key} of {name} "
                    f"is {_told(found)}, of {first} {_told(wanted)}; make them equal",
                )


def _told(value: object) -> str:
    return "that of the stage" if value is None else str(value)
