"""Conversations: ``{id, image, conversations: [{from: "human" | "gpt", value}]}`` of LLaVA.

``messages`` with ``role`` and ``content`` of LLaMA-Factory and OpenAI are the same in other words, and
``images: [..]`` of one picture is ``image``. A content of parts may hold the picture itself.

The texts of a picture are the answers (``gpt``); the whole conversations are in
``labels["conversations"]``, one list for each entry. Entries without a picture are kept: their id
is the entry's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plait.data.base.sample import BadRow
from plait.data.readers import documents, talk
from plait.data.readers.files import Finder, Lines
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_split
from plait.data.readers.table import parse

_FIELDS = frozenset(
    [
        "image",
        "images",
        "conversations",
        "messages",
        "split",
        "group",
        "sample_id",
        "language",
        "labels",
    ]
)


def read(found: Found) -> Rows:
    """One row an entry."""
    for path in found.files:
        finder = documents.finder_of(path, found)
        for item in _entries(path):
            yield item if isinstance(item, BadRow) else _row(path, *item, finder, found)


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]] | BadRow]:
    if Lines(path, "").head.lstrip()[:1] == "{" or path.suffix.lower() == ".jsonl":
        yield from parse(path)
        return
    for number, entry in enumerate(documents.load(path), 1):
        if isinstance(entry, dict):
            yield number, entry
        else:
            kind = type(entry).__name__
            yield BadRow(str(path), number, f"must be a JSON object, not {kind}", "wrong-type")


def _row(
    path: Path, number: int, entry: dict[str, Any], finder: Finder, found: Found
) -> Row | BadRow:
    row = Row(str(path), number, split=found.splits.get(path))
    try:
        name = "conversations" if "conversations" in entry else "messages"
        turns = documents.required(entry, name, (list,), "the turns")
        labels = entry.get("labels")
        row.labels = labels if isinstance(labels, dict) else {}
        row.meta = {name: value for name, value in entry.items() if name not in _FIELDS}
        row.id = documents.optional(entry, "sample_id")
        row.split = clean_split(entry.get("split")) or row.split
        row.group = documents.optional(entry, "group")
        pictures = talk.pictures_of(entry.get("image"), entry.get("images"))
        if not talk.fill(row, turns, pictures, finder) and row.id is None:
            row.id = documents.optional(entry, "id")
        language = documents.optional(entry, "language")
        row.languages = (language,) * len(row.texts) if language else ()
    except Bad as bad:
        return row.bad(bad.kind, bad.problem)
    return row
