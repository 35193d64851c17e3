"""Rows of an Arrow table, which may be mapped from disk: Parquet files and HF data sets share it.

Pictures may be paths, bytes, or ``{bytes, path}`` as Hugging Face embeds them. They stay in the
table and are read one by one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from plait.core.errors import DataError
from plait.core.files import parse_json
from plait.core.media import ArrowRef
from plait.data.base.inline import kind_within
from plait.data.readers.cells import Embedded
from plait.data.readers.columns import Plan, plan
from plait.data.readers.files import Finder
from plait.data.readers.records import row_of
from plait.data.readers.rows import Found, Rows


@dataclass(frozen=True, slots=True)
class Part:
    """One table of a data set: a file or a split. ``split`` is what its name states."""

    path: Path
    table: pa.Table
    split: str | None = None


def read(tables: Sequence[Part], found: Found, finder: Finder) -> Rows:
    """Rows of tables that make up one data set, each numbered from 1."""
    names: Counter[str] = Counter()
    for part in tables:
        table = _single(part.table)
        for column in _embedded(table):
            names.update(path for path in _paths(table[column]) if path)
    repeated = frozenset(name for name, count in names.items() if count > 1)
    for part in tables:
        yield from _rows(part, found, finder, repeated)


def _rows(part: Part, found: Found, finder: Finder, repeated: frozenset[str]) -> Rows:
    table, path = _single(part.table), part.path
    media = _embedded(table)
    plain = table.drop_columns(media)
    names = class_names(table.schema)
    chosen = _plan(part, names, found, plain.slice(0, 20).to_pylist())
    note = f"{path.name}: {chosen.sentence}"
    if note not in found.notes:
        found.notes.append(note)
    used = [name for name in (chosen.image, *chosen.media.values()) if name in media]
    columns = {name: _Column(table[name], name, repeated) for name in used if name}
    number = 0
    for batch in plain.to_batches(max_chunksize=10_000):
        for record in batch.to_pylist():
            number += 1
            for label, words in names.items():
                if isinstance(value := record.get(label), int) and 0 <= value < len(words):
                    record[label] = words[value]
            for name, column in columns.items():
                record[name] = column.medium(number - 1)
            yield row_of(record, chosen, finder, path, number, part.split)


def _plan(
    part: Part, names: Mapping[str, list[str]], found: Found, examples: list[dict[str, Any]]
) -> Plan:
    """The roles of the columns.

    The only column of bytes holds the pictures, however it is called; a set of pictures and named
    classes has those names as texts.
    """
    columns = part.table.column_names
    try:
        return plan(columns, found.columns, part.path, examples)
    except DataError as error:
        refusal = error
    mapping = dict(found.columns)
    bytes_of = _embedded(_single(part.table))
    if len(bytes_of) == 1 and "image" not in mapping:
        mapping["image"] = bytes_of[0]
        try:
            return plan(columns, mapping, part.path, examples)
        except DataError:
            pass  # it may be the texts that lack
    if len(names) != 1 or "text" in mapping:
        raise refusal
    label = next(iter(names))
    return plan(columns, {"labels": label, **mapping, "text": label}, part.path, examples)


def _single(table: pa.Table) -> pa.Table:
    """The table with its lists of exactly one embedded file as that file, still in the table."""
    for place, field in enumerate(table.schema):
        kind = field.type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            continue
        if _holds_bytes(kind.value_type):
            lengths = pc.list_value_length(table[field.name])
            if pc.all(pc.fill_null(pc.equal(lengths, 1), False)).as_py():
                table = table.set_column(place, field.name, pc.list_flatten(table[field.name]))
    return table


def _embedded(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if _holds_bytes(table.schema.field(name).type)]


def _paths(column: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
        return pc.struct_field(column, "path").to_pylist()
    return [None] * len(column)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of integer classes that Hugging Face stores in a schema, by column."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"].decode())["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {
        column: feature["names"]
        for column, feature in (features if isinstance(features, Mapping) else {}).items()
        if isinstance(feature, Mapping) and feature.get("names")
    }


def _is_base64(value: pa.Scalar) -> bool:
    """Whether bytes spell out a picture: dumps of base64 are often stored as binary."""
    head = bytes(memoryview(value.as_buffer())[:400])
    return head.isascii() and kind_within(head.decode("ascii")) is not None


class _Column:
    """One column of embedded files."""

    def __init__(self, column: pa.ChunkedArray, name: str, repeated: frozenset[str]) -> None:
        self.label, self.repeated = name, repeated
        self.paths = _paths(column)
        self.data = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
        self.valid = self.data.is_valid().to_pylist()
        first = next((place for place, valid in enumerate(self.valid) if valid), None)
        self.base64 = first is not None and _is_base64(self.data[first])

    def medium(self, index: int) -> Embedded | str | None:
        """The file of a row: embedded, or a path for the caller to find."""
        path = self.paths[index] or ""
        if not self.valid[index]:
            return path or None
        ref = ArrowRef(self.data, index, path or f"{self.label}[{index + 1}]", self.base64)
        if path and path not in self.repeated:
            return Embedded(ref, path, ("embedded", path))
        # embedded paths are often bare names: only the content tells whether it is the same file
        return Embedded(ref, path, ("embedded", path, hashlib.sha256(ref.read()).digest()))
