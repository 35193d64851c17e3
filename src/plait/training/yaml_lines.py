"""YAML with the line of every key, numbers as people write them, and no key given twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from plait.core.errors import RecipeError

Place = tuple[str | int, ...]


class Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as YAML 1.2 does; PyYAML alone reads it as a string."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:
    """One value as it would stand in a recipe: ``3``, ``1e-3``, ``true``, ``[1, 2]``, ``null``."""
    return yaml.load(text, Loader)


def parse_yaml(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    """The content of a file, and the line (from 1) of each of its places.

    Raises:
        RecipeError: not UTF-8, not YAML, not a mapping, or a key given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from None
    try:
        node = yaml.compose(text, Loader)
        content = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error)
        raise RecipeError(f"{path}{line}: not valid YAML: {problem}") from None
    if not isinstance(content, dict) or node is None:
        raise RecipeError(f"{path}: a recipe is a mapping of name, data, model, stages ...")
    lines: dict[Place, int] = {}
    _collect(node, (), lines, path)
    return content, lines


def _collect(node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            line = key.start_mark.line + 1
            if inner in lines:
                name = ".".join(map(str, inner))
                raise RecipeError(
                    f"{path}, line {line}: {name}: given twice (first in line {lines[inner]})"
                )
            lines[inner] = line
            _collect(value, inner, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*place, number)] = value.start_mark.line + 1
            _collect(value, (*place, number), lines, path)
