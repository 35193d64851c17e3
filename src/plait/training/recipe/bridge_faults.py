"""What is wrong in a recipe of a language model that sees although every key and type is right."""

from __future__ import annotations

from collections.abc import Iterator

from plait.core.errors import did_you_mean
from plait.core.modality import IMAGE
from plait.training.recipe.parts import BRIDGE, LANGUAGE
from plait.training.recipe.schema import Recipe

Fault = tuple[tuple[str | int, ...], str]


def bridge_faults(recipe: Recipe) -> Iterator[Fault]:
    """Of the model, and of what only its stages show."""
    from plait.bridges.registry import BRIDGES  # loads torch, which other recipes need only later

    model = recipe.model
    if set(model.towers) != {IMAGE}:
        named = " and ".join(model.towers)
        yield (
            ("model", "towers"),
            f"a bridge leads from {IMAGE} to the language model; the towers are {named}",
        )
    for name in ("bridge", "language"):
        if getattr(model, name) is None:
            yield ("model", name), "a model of kind bridge needs it: see `plait recipes llava`"
    if model.bridge is not None and model.bridge.kind not in BRIDGES:
        hint = did_you_mean(model.bridge.kind, BRIDGES)
        yield (
            ("model", "bridge", "kind"),
            f"no bridge {model.bridge.kind!r}{hint} (known: {', '.join(BRIDGES)})",
        )
    language = model.language
    if language is not None and (language.vocabulary is None) == language.source.startswith(
        "scratch/"
    ):
        need = "needs" if language.vocabulary is None else "has its own tokenizer, not"
        yield ("model", "language", "vocabulary"), f"{language.source} {need} a vocabulary"
    for kind in model.sizes:
        if kind not in BRIDGES:
            yield ("model", "sizes", kind), f"no bridge {kind!r}{did_you_mean(kind, BRIDGES)}"
    for number, stage in enumerate(recipe.stages):
        if len(stage.tasks) > 1:
            yield ("stages", number, "tasks"), "a stage of a language model has one task"
    yield from _qformer_faults(recipe)


def _qformer_faults(recipe: Recipe) -> Iterator[Fault]:
    """Of BLIP-2's first stage, whose sizes follow from the language model's tokenizer."""
    bridge = recipe.model.bridge
    stages = [
        number
        for number, stage in enumerate(recipe.stages)
        if any(task.objective == "qformer" for task in stage.tasks)
    ]
    if bridge is None or not stages:
        return
    if bridge.kind != "qformer":
        yield (
            ("stages", stages[0], "tasks", 0, "objective"),
            f"'qformer' trains a Q-Former, and model.bridge.kind is {bridge.kind!r}",
        )
    for number in stages:
        train = ("stages", number, "train")
        if recipe.stages[number].part(BRIDGE).mode == "frozen":
            yield (*train, BRIDGE), "the objective qformer trains the bridge: it cannot be frozen"
        if recipe.stages[number].part(LANGUAGE).mode != "frozen":
            yield (
                (*train, LANGUAGE),
                "the language model takes no part in the objective qformer: leave it frozen",
            )
    for place, options in (
        (("model", "bridge", "options"), bridge.options),
        (("model", "sizes", "qformer"), recipe.model.sizes.get("qformer", {})),
    ):
        if "vocabulary" in options:
            yield (
                (*place, "vocabulary"),
                "follows from the language model's tokenizer: leave it out",
            )
