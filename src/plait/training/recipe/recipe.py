"""Recipes: YAML in, a checked `Recipe` out, or one message that names every fault and its place.

load_recipe("align", ["stages.0.epochs=3"], data="pairs/")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from plait.core.errors import RecipeError, did_you_mean, shown
from plait.core.files import read_regular
from plait.training.recipe.combinations import Place, faults
from plait.training.recipe.overrides import apply_overrides
from plait.training.recipe.schema import Recipe
from plait.training.recipe.yaml_lines import MOST_CHARACTERS, parse_yaml

HEADER = ("shows", "cost", "result")
RUN_RECIPE = "recipe.yaml"


def load_recipe(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    model: str | None = None,
) -> Recipe:
    """Reads and checks a recipe.

    Args:
        name_or_path: a YAML file, or the name of a built-in recipe.
        overrides: ``"stages.0.epochs=3"`` and the like; values are YAML.
        data: replaces ``data.source``.
        model: replaces ``model.published``.

    Raises:
        RecipeError: no such recipe, or anything in it is wrong; the message lists all of it.
    """
    path = recipe_path(name_or_path)
    content, lines = parse_yaml(path)
    for name, key, value in (("data", "source", data), ("model", "published", model)):
        section = content.setdefault(name, {}) if value is not None else None
        if isinstance(section, dict):
            section[key] = value
    changed = apply_overrides(content, overrides)
    return check(content, str(path), lines, changed)


def check(
    content: Mapping[str, Any],
    where: str = "recipe",
    lines: Mapping[Place, int] | None = None,
    changed: Mapping[Place, str] | None = None,
) -> Recipe:
    """A `Recipe` from plain values.

    Args:
        content: what the YAML holds.
        where: the file's name, for messages.
        lines: the line of each place.
        changed: the override that made each place, named in messages instead of the line.

    Raises:
        RecipeError: with every fault, one a line.
    """
    try:
        recipe = Recipe.model_validate(dict(content))
        found = list(faults(recipe))
    except ValidationError as error:
        found = [_fault_of(entry) for entry in error.errors()]
    if found:
        told = [
            _tell(place, message, where, lines or {}, changed or {}) for place, message in found
        ]
        raise RecipeError("\n".join(dict.fromkeys(told)))
    return recipe


def _fault_of(entry: Mapping[str, Any]) -> tuple[Place, str]:
    place: Place = tuple(entry["loc"])
    kind, given = entry["type"], entry.get("input")
    if kind == "unknown_key":
        return (*place, entry["ctx"]["key"]), entry["msg"]
    if kind == "missing":
        return place, "is missing"
    message = entry["msg"][0].lower() + entry["msg"][1:]
    message = message.replace("input should be", "should be").replace("dictionary", "mapping")
    if kind == "literal_error" and isinstance(given, str):
        known = [
            word.strip("' ") for word in entry["ctx"]["expected"].replace(" or ", ",").split(",")
        ]
        message += did_you_mean(given, known)
    return place, f"{shown(given)}: {message}" if not isinstance(given, dict | list) else message


def _tell(
    place: Place,
    message: str,
    where: str,
    lines: Mapping[Place, int],
    changed: Mapping[Place, str],
) -> str:
    """``align.yaml, line 12: stages.0.epochs: -1: should be greater than 0``."""
    key = ".".join(str(part)[:100] for part in place)
    for length in range(len(place), 0, -1):
        if place[:length] in changed:
            return f"--set {changed[place[:length]]}: {key}: {message}"
        if place[:length] in lines:
            return f"{where}, line {lines[place[:length]]}: {key}: {message}"
        for longer, override in changed.items():  # the override made all that lies above it
            if longer[:length] == place[:length]:
                return f"--set {override}: {key}: {message}"
    return f"{where}: {key}: {message}" if key else f"{where}: {message}"


def recipe_folder() -> Path:
    """Where the built-in recipes are: in the installed package, or in the repository."""
    installed = Path(__file__).parents[2] / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[4] / "recipes"


def recipe_path(name_or_path: str | Path) -> Path:
    """The file of a recipe given by name or path."""
    text = str(name_or_path)
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.exists():
            return path
        raise RecipeError(f"no recipe file {text}")
    built_in = recipe_folder() / f"{text}.yaml"
    if built_in.is_file():
        return built_in
    if path.is_file():
        return path
    known = [entry["name"] for entry in list_recipes()]
    raise RecipeError(
        f"no recipe {text!r}{did_you_mean(text, known)}"
        f" (built in: {', '.join(known)}; a file of your own ends in .yaml)"
    )


def list_recipes() -> list[dict[str, str]]:
    """The built-in recipes: ``name``, and what its first lines say: ``shows, cost, result``."""
    listed = []
    for path in sorted(recipe_folder().glob("*.yaml")):
        entry = {"name": path.stem, **dict.fromkeys(HEADER, "")}
        key = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            word, colon, rest = line[1:].strip().partition(":")
            if colon and word in HEADER:
                key, entry[word] = word, rest.strip()
            elif key:
                entry[key] = f"{entry[key]} {line[1:].strip()}".strip()
        listed.append(entry)
    return listed


def recipe_text(name_or_path: str | Path) -> str:
    """A recipe as it is written, comments included."""
    return read_regular(recipe_path(name_or_path), most_bytes=MOST_CHARACTERS).decode("utf-8")


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe with every default spelt out, as a run folder keeps it."""
    content = recipe.model_dump(mode="json")
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def read_run_recipe(run: Path) -> Recipe:
    """The recipe that a run folder was made with.

    Raises:
        RecipeError: the folder is not a run of plait.
    """
    path = Path(run) / RUN_RECIPE
    if not path.is_file():
        raise RecipeError(f"{run} is not a run folder: it has no {RUN_RECIPE}")
    content, lines = parse_yaml(path)
    return check(content, str(path), lines)
