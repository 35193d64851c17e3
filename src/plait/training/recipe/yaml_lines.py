"""YAML with the line of every key, numbers as people write them, and no key given twice.

Recipes come from others too: what aliases and merges would write out is counted before anything is
made of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from plait.core.errors import RecipeError, shown
from plait.core.files import read_regular

Place = tuple[str | int, ...]

MOST_CHARACTERS = 1 << 20
MOST_VALUES = 20_000
MOST_DEPTH = 40
_MANY = f"more than {MOST_VALUES:,} values, each use of an alias (*name) counted"
_DEEP = f"nested more than {MOST_DEPTH} deep"


class Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as YAML 1.2 does; PyYAML alone reads it as a string."""

    composed = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As PyYAML's, up to `MOST_VALUES`: it takes seconds for many more."""
        self.composed += 1
        if self.composed > MOST_VALUES:
            raise yaml.YAMLError(_MANY)
        return super().compose_node(parent, index)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:
    """One value as it would stand in a recipe: ``3``, ``1e-3``, ``true``, ``[1, 2]``, ``null``.

    Raises:
        yaml.YAMLError: it is none, or too large.
    """
    return _constructed(text)[1]


def _constructed(text: str) -> tuple[yaml.Node | None, Any]:
    """The nodes of a text, and the value they stand for. Raises yaml.YAMLError."""
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"{len(text):,} characters, at most {MOST_CHARACTERS:,} are read")
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _count(node)
        lines = yaml.compose(text, Loader)  # merging changes the nodes
        return lines, loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(_DEEP) from None
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        # PyYAML makes numbers and dates of what only looks like them
        raise yaml.YAMLError(f"a value cannot be read: {shown(str(error))}") from None
    finally:
        loader.dispose()


def _count(root: yaml.Node) -> None:
    """Raises yaml.YAMLError for too many values, aliases written out, or too deep ones."""
    pending, count = [(root, 0)], 0
    while pending:
        node, depth = pending.pop()
        count += 1
        if count > MOST_VALUES:
            raise yaml.YAMLError(_MANY)
        if depth > MOST_DEPTH:
            raise yaml.YAMLError(_DEEP)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.composer.ComposerError(
                        None, None, "a key must be a word", key.start_mark
                    )
                pending += [(key, depth + 1), (value, depth + 1)]
        elif isinstance(node, yaml.SequenceNode):
            pending += [(value, depth + 1) for value in node.value]


def parse_yaml(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    """The content of a file, and the line (from 1) of each of its places.

    Raises:
        RecipeError: not UTF-8, not YAML, not a mapping, or a key given twice.
    """
    try:
        text = read_regular(path, most_bytes=MOST_CHARACTERS).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from None
    try:
        node, content = _constructed(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error)
        raise RecipeError(f"{path}{line}: not valid YAML: {str(problem)[:400]}") from None
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
