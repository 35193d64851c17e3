"""One cell of a table: a list of texts, or where the picture is that it names or holds."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from plait.core.base64 import from_base64
from plait.core.errors import shown
from plait.core.files import parse_json
from plait.core.media import BytesRef, FileRef, MediaRef
from plait.data.base.inline import data_url, kind_within
from plait.data.readers.files import Finder
from plait.data.readers.rows import Bad

_LISTED = 1 << 20  # characters of a list in a cell: Python's own parser takes 500 bytes for each


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture inside a table. ``key`` tells its content from others'."""

    ref: MediaRef
    name: str
    key: Hashable
    origin: str = ""


def listed(cell: Any) -> list[Any]:
    """A cell as a list: a list as it is, ``'["a", "b"]'`` (JSON or Python) parsed, else alone."""
    if isinstance(cell, list | tuple):
        return list(cell)
    if isinstance(cell, str) and cell[:1] == "[" and cell[-1:] == "]" and len(cell) < _LISTED:
        for parse in (parse_json, ast.literal_eval):
            try:
                value = parse(cell)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue  # a caption may well be "[laughs]"
            if isinstance(value, list) and all(isinstance(part, str | None) for part in value):
                return value
    return [cell]


def medium(value: Any, column: str | None, finder: Finder) -> Embedded:
    """The file of a cell: a path, a list of one, ``{bytes, path}``, a data URL or base64.

    Raises:
        Bad: it names no file, several, or one that cannot be had.
    """
    several = listed(value)
    if len(several) > 1:
        raise Bad("several-pictures", f"{column!r} lists {len(several)} files: one a row is read")
    value = several[0] if several else None
    if isinstance(value, Embedded):
        return value
    if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
        data, path = value.get("bytes"), value.get("path")
        if isinstance(data, bytes):
            return _content(data, column, path if isinstance(path, str) else "")
        value = data or path
    if isinstance(value, bytes):
        return _content(value, column)
    if isinstance(value, str) and value.strip():
        data = _inline(value)
        if data is not None:
            return _content(data, column)
        ref = finder.find(value)
        return Embedded(ref, ref.name, file_key(ref))
    if value is None or value == "":
        raise Bad("missing-file", f"the row names no file: {column!r} is empty")
    raise Bad(
        "wrong-type", f"{column!r} must name a file, not be {type(value).__name__} {shown(value)}"
    )


def _content(data: bytes, column: str | None, name: str = "") -> Embedded:
    content = hashlib.sha256(data).hexdigest()
    return Embedded(BytesRef(data, name or f"{column}~{content[:8]}"), name, ("content", content))


def _inline(text: str) -> bytes | None:
    """The bytes that a cell spells out as a data URL or in base64; None for a name."""
    head = data_url(text)
    try:
        if head is None:
            return None if kind_within(text) is None else from_base64(text)
        body = text[head.start :]
        return from_base64(body, url=True) if head.is_base64 else unquote_to_bytes(body)
    except ValueError as error:
        raise Bad("bad-base64", f"the picture in the row is no base64: {error}") from None


def file_key(ref: FileRef) -> str:
    """Tells files apart, however their paths are written."""
    return str(ref.path.resolve() if ".." in ref.path.parts else ref.path)
