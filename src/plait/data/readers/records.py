"""One record of a table, whatever file it came from, to a `Row`."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from plait.core.errors import shown
from plait.core.files import parse_json
from plait.data.inline import data_url, from_base64, kind_within
from plait.data.readers.columns import Plan
from plait.data.readers.files import Finder
from plait.data.readers.rows import Bad, Row, clean_split, clean_texts
from plait.data.sample import BadRow, BytesRef, FileRef, MediaRef

_LISTED = 1 << 20  # characters of a list in a cell: Python's own parser takes 500 bytes for each


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture inside a table. ``key`` tells its content from others'."""

    ref: MediaRef
    name: str
    key: Hashable
    origin: str = ""


def row_of(
    record: Mapping[str, Any],
    plan: Plan,
    finder: Finder,
    path: Path,
    number: int | str,
    split: str | None = None,
) -> Row | BadRow:
    """The row of a record, or why it is none. ``split`` is what the file's name states."""
    row = Row(str(path), number, split=split)
    try:
        _fill(row, record, plan, finder)
    except Bad as bad:
        return row.bad(bad.kind, bad.problem)
    return row


def _fill(row: Row, record: Mapping[str, Any], plan: Plan, finder: Finder) -> None:
    media = {
        name: medium(record.get(column), column, finder)
        for name, column in plan.media.items()
        if record.get(column) not in (None, "")
    }
    row.media = {name: one.ref for name, one in media.items()}
    empty = plan.image is None or record.get(plan.image) in (None, "")
    without = empty and (media or plan.image is None)  # audio with text needs no picture
    pictures = [] if without else [medium(record.get(str(plan.image)), plan.image, finder)]
    if pictures:
        row.image = pictures[0].ref
    named = [*pictures, *media.values()]
    if not named:
        raise Bad("missing-file", "the row names no file")
    row.key, row.origin = named[0].key, named[0].origin
    row.name = named[0].name or next(
        (str(record[name]) for name in plan.naming if record.get(name) not in (None, "")), ""
    )
    if plan.split:
        row.split = clean_split(record.get(plan.split)) or row.split
    if plan.group:
        row.group = _string(record.get(plan.group), plan.group)
    if plan.id:
        row.id = _string(record.get(plan.id), plan.id)
    row.labels = {**_labels(record, plan), **_turns(record, plan)}
    row.meta = {name: record[name] for name in plan.other if record.get(name) not in (None, "")}
    _texts(row, record, plan)  # last: a row without a text is still a picture


def _turns(record: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The conversation of texts that are ``{user, assistant}``, as the_cauldron has them."""
    turns = [
        {"from": speaker, "value": str(turn.get(name) or "")}
        for column, _ in plan.texts
        for turn in listed(record.get(column))
        if isinstance(turn, Mapping) and "assistant" in turn
        for speaker, name in (("human", "user"), ("gpt", "assistant"))
    ]
    if not turns:
        return {}
    if record.get(str(plan.image)):  # its pictures come first, without placeholders
        turns[0]["value"] = "<image>" + turns[0]["value"]
    return {"conversations": [turns]}


def _texts(row: Row, record: Mapping[str, Any], plan: Plan) -> None:
    values: list[Any] = []
    languages: list[str | None] = []
    several = len(plan.texts) > 1
    for column, language in plan.texts:
        cell = record.get(column)
        if several and (cell is None or cell == "" or cell != cell):
            continue  # of five caption columns a picture may fill three
        found = listed(cell)
        values += found
        languages += [language] * len(found)
    talk = [value for value in values if isinstance(value, Mapping) and "assistant" in value]
    if talk and len(talk) == len(values):
        values = [turn["assistant"] for turn in talk]
    row.texts = clean_texts(values)
    if plan.language:
        stated = [
            None if part in (None, "") else _string(part, plan.language)
            for part in listed(record.get(plan.language))
        ]
        languages = stated * len(values) if len(stated) == 1 else stated
        if len(languages) != len(values):
            raise Bad("wrong-type", f"{len(values)} texts, but {len(languages)} languages")
    if any(languages):
        row.languages = tuple(languages)


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
    if isinstance(value, Embedded):
        return value
    several = listed(value)
    if len(several) > 1:
        raise Bad("several-pictures", f"{column!r} lists {len(several)} files: one a row is read")
    value = several[0] if several else None
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


def _string(value: Any, column: str) -> str | None:
    if value is None or value != value or value == "":
        return None
    if isinstance(value, bool | int | str):
        return str(value)
    raise Bad(
        "wrong-type", f"{column!r} must be a string, not {type(value).__name__} {shown(value)}"
    )


def _labels(record: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    labels: dict[str, Any] = {}
    for column in plan.labels:
        value = record.get(column)
        if value is None or value == "":
            continue
        if column == "labels" and isinstance(value, str) and value[:1] == "{":
            try:
                value = parse_json(value)
            except ValueError as error:
                raise Bad("bad-json", f"'labels' is no JSON object: {error}") from None
        if column == "labels" and isinstance(value, Mapping):
            labels.update(value)
        else:
            labels[column] = value
    return labels
