"""LLaVA conversations: ``{id, image, conversations: [{from: "human" | "gpt", value}]}``.

The texts of a picture are the answers (``gpt``); the whole conversations are in
``labels["conversations"]``, one list for each entry. Entries without a picture are kept: their id
is the entry's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plait.data.readers import documents
from plait.data.readers.files import Finder, Lines
from plait.data.readers.records import file_key
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_split, clean_texts
from plait.data.readers.table import parse
from plait.data.sample import BadRow

PLACEHOLDER = "<image>"
_FIELDS = frozenset(["image", "conversations", "split", "group", "sample_id", "language", "labels"])


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
        turns = documents.required(entry, "conversations", (list,), "the turns")
        image = documents.optional(entry, "image")
        row.texts = clean_texts(_answers(turns, with_image=image is not None))
        row.id = documents.optional(entry, "sample_id")
        if image is not None:
            ref = finder.find(image)
            row.image, row.name, row.key = ref, ref.name, file_key(ref)
        elif row.id is None:
            row.id = documents.optional(entry, "id")
        row.split = clean_split(entry.get("split")) or row.split
        row.group = documents.optional(entry, "group")
        language = documents.optional(entry, "language")
        row.languages = (language,) * len(row.texts) if language else ()
    except Bad as bad:
        return row.bad(bad.kind, bad.problem)
    labels = entry.get("labels")
    row.labels = {
        **(labels if isinstance(labels, dict) else {}),
        "conversations": [[{"from": turn["from"], "value": turn["value"]} for turn in turns]],
    }
    row.meta = {name: value for name, value in entry.items() if name not in _FIELDS}
    return row


def _answers(turns: list[Any], *, with_image: bool) -> list[str]:
    """What ``gpt`` says. Raises `Bad` for a wrong turn, or pictures and placeholders that differ."""
    placeholders, answers = 0, []
    for number, turn in enumerate(turns):
        speaker = documents.required(turn, "from", (str,), "who speaks")
        value = documents.required(turn, "value", (str,), "what is said")
        if speaker not in ("human", "gpt", "system"):
            known = "'human', 'gpt' or 'system'"
            raise Bad("wrong-type", f"turn {number + 1} is from {speaker!r}, not {known}")
        placeholders += value.count(PLACEHOLDER)
        if speaker == "gpt":
            answers.append(value)
    if placeholders != int(with_image):
        pictures = "one picture" if with_image else "no picture"
        raise Bad("placeholder", f"the turns hold {placeholders} {PLACEHOLDER}, but {pictures}")
    return answers
