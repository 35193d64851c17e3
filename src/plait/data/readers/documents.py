"""What the JSON annotation formats share: reading the document, finding the pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from plait.core.errors import DataError, shown
from plait.core.files import parse_json, read_regular
from plait.data.readers.files import MOST_DOCUMENT, Finder, check_text, decoded
from plait.data.readers.rows import Bad, Found

_ANNOTATION_FOLDER = re.compile(r"^(annotations?|captions?|text|flickr_?8k_text)$", re.IGNORECASE)


def load(path: Path) -> Any:
    """A JSON document. Raises `DataError` with the line of what is wrong."""
    try:
        text, valid = decoded(read_regular(path, most_bytes=MOST_DOCUMENT))
    except UnicodeDecodeError as error:
        raise DataError(f"is not valid UTF-16: {error.reason}", path=path) from error
    if not valid:
        for number, line in enumerate(text.split("\n"), 1):
            try:
                check_text(line)
            except Bad as bad:
                raise DataError(bad.problem, path=path, row=number) from None
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"is no valid JSON: {error}", path=path) from None


def entries(document: Any, name: str, path: Path) -> list[Any]:
    """A list of a document. Raises `DataError` when it is none."""
    value = document.get(name)
    if not isinstance(value, list):
        raise DataError(f"{name!r} must be a list, not {type(value).__name__}", path=path)
    return value


def finder_of(path: Path, found: Found) -> Finder:
    """Finds the pictures of an annotation file: near it, in what was opened, beside its folder."""
    beside = _ANNOTATION_FOLDER.match(path.parent.name) is not None
    wide = [path.parent, found.folder, *([path.parent.parent] if beside else [])]
    return Finder([path.parent, found.folder], wide=wide, leave=found.leave)


def required(entry: Any, name: str, kinds: tuple[type, ...], what: str) -> Any:
    """A field of an entry. Raises `Bad` when it is missing or of another type."""
    if not isinstance(entry, dict):
        raise Bad("wrong-type", f"must be a JSON object, not {type(entry).__name__}")
    if name not in entry:
        raise Bad("missing-column", f"has no {name!r} ({what})")
    value = entry[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise Bad(
            "wrong-type", f"{name!r} must be {wanted}, not {type(value).__name__} {shown(value)}"
        )
    return value


def named(entry: Any, name: str, what: str) -> str:
    """The file that a field names, alone or in a list of one. Raises `Bad` for anything else."""
    value = required(entry, name, (str, list), what)
    if isinstance(value, str):
        return value
    if len(value) > 1:
        raise Bad("several-pictures", f"{name!r} lists {len(value)} files: one a row is read")
    return str(required({name: value[0]} if value else {}, name, (str,), what))


def optional(entry: dict[str, Any], name: str) -> str | None:
    """A string field that may be missing. Raises `Bad` when it is something else."""
    value = entry.get(name)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int):
        return str(value)
    raise Bad("wrong-type", f"{name!r} must be a string, not {type(value).__name__} {shown(value)}")
