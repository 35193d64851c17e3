"""``--set stages.0.epochs=3``: changing single values of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from plait.core.errors import RecipeError
from plait.training.recipe.yaml_lines import Place, parse_value


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> dict[Place, str]:
    """Changes ``content`` in place.

    Paths are keys and list positions with dots between; ``stages[0].epochs`` works too. A key that
    has dots itself (``image.encoder`` under ``train``) is written as it stands.

    Returns:
        the override that made each changed place.

    Raises:
        RecipeError: no ``=``, a bad value, or a path that leads nowhere.
    """
    changed: dict[Place, str] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise RecipeError(f"--set {override}: write PATH=VALUE, as in stages.0.epochs=3")
        try:
            value = parse_value(text)
        except yaml.YAMLError:
            raise RecipeError(f"--set {override}: {text!r} is not a YAML value") from None
        steps = path.strip().replace("[", ".").replace("]", "").split(".")
        place = _assign(content, steps, value, override)
        changed[place] = override
    return changed


def _assign(content: dict[str, Any], steps: list[str], value: Any, override: str) -> Place:
    here: Any = content
    place: Place = ()
    key: Any
    while True:
        key, steps = _next_key(here, steps, place, override)
        place = (*place, key)
        if not steps:
            here[key] = value
            return place
        inner = here[key] if isinstance(here, list) else here.get(key)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and "train" in place:
            inner = {"mode": inner}  # the short form of a part
        elif not isinstance(inner, dict | list):
            name = ".".join(map(str, place))
            raise RecipeError(f"--set {override}: {name} is {inner!r} and holds nothing further")
        here[key] = inner
        here = inner


def _next_key(
    here: Any, steps: list[str], place: Place, override: str
) -> tuple[str | int, list[str]]:
    if isinstance(here, list):
        name = ".".join(map(str, place))
        if not steps[0].isdigit() or int(steps[0]) >= len(here):
            entries = ", ".join(f"{name}.{number}" for number in range(len(here)))
            raise RecipeError(f"--set {override}: {name} is a list: its entries are {entries}")
        return int(steps[0]), steps[1:]
    for length in range(len(steps), 0, -1):
        joined = ".".join(steps[:length])
        if joined in here:
            return joined, steps[length:]
    if place and place[-1] == "train" and len(steps) > 1:
        return ".".join(steps[:2]), steps[2:]
    return steps[0], steps[1:]
