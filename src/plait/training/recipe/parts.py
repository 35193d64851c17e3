"""Names of the parts of a model that a stage trains or leaves at rest."""

from __future__ import annotations

from plait.core.modality import IMAGE
from plait.training.recipe.schema import Recipe

TEMPERATURE, FUSION, HEADS = "temperature", "fusion", "heads"
BRIDGE, GATES, LANGUAGE = "bridge", "gates", "language"
DVAE, TRANSFORMER = "dvae", "transformer"
PARTS = ("encoder", "projection")


def part_names(recipe: Recipe) -> list[str]:
    """Names of the parts that a stage may train: ``image.encoder``, ..., ``temperature``."""
    towers = recipe.model.towers
    if recipe.model.kind == "fusion":
        return [*(f"{tower}.encoder" for tower in towers), FUSION, HEADS]
    if recipe.model.kind == "bridge":
        gated = recipe.model.bridge is not None and recipe.model.bridge.injection == "gated"
        return [f"{IMAGE}.encoder", BRIDGE, *([GATES] if gated else []), LANGUAGE]
    if recipe.model.kind == "drawing":
        return [DVAE, TRANSFORMER]
    return [*(f"{tower}.{part}" for tower in towers for part in PARTS), TEMPERATURE]
