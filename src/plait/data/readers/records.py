"""One record of a table, whatever file it came from, to a `Row`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plait.core.errors import shown
from plait.core.files import parse_json
from plait.data.base.sample import BadRow
from plait.data.readers import talk
from plait.data.readers.cells import listed, medium
from plait.data.readers.columns import Plan
from plait.data.readers.files import Finder
from plait.data.readers.rows import Bad, Row, clean_split, clean_texts

_LONGEST_ID = 500  # characters of an id or a group: they are repeated in every message


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
    turns = _turns(record, plan)
    if turns is not None:
        _stated(row, record, plan)
        about = [] if plan.image is None else talk.pictures_of(record.get(plan.image))
        if talk.fill(row, turns, about, finder):
            row.name = row.name or _named(record, plan)
        return
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
    row.name = named[0].name or _named(record, plan)
    _stated(row, record, plan)
    _texts(row, record, plan)  # last: a row without a text is still a picture


def _named(record: Mapping[str, Any], plan: Plan) -> str:
    """The name of a picture that has none of its own, from another column."""
    return next(
        (str(record[name]) for name in plan.naming if record.get(name) not in (None, "")), ""
    )


def _stated(row: Row, record: Mapping[str, Any], plan: Plan) -> None:
    """What a record states of split, group, id, labels and the rest."""
    if plan.split:
        row.split = clean_split(record.get(plan.split)) or row.split
    if plan.group:
        row.group = _string(record.get(plan.group), plan.group)
    if plan.id:
        row.id = _string(record.get(plan.id), plan.id)
    row.labels = _labels(record, plan)
    row.meta = {name: record[name] for name in plan.other if record.get(name) not in (None, "")}


def _turns(record: Mapping[str, Any], plan: Plan) -> list[Any] | None:
    """The conversation of a record, where it holds one instead of texts."""
    if len(plan.texts) != 1:
        return None
    column, _ = plan.texts[0]
    if plan.prompt:
        asked = [str(record[name]) for name in plan.prompt if record.get(name)]
        answer = record.get(column)
        return [{"user": "\n".join(asked), "assistant": answer if isinstance(answer, str) else ""}]
    return talk.turns_in(record.get(column))


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


def _string(value: Any, column: str) -> str | None:
    if value is None or value != value or value == "":
        return None
    if isinstance(value, bool | int | str):
        if len(text := str(value)) > _LONGEST_ID:
            raise Bad("wrong-type", f"{column!r} has {len(text):,} characters: {shown(text)}")
        return text
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
