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

from plait.core.errors import shown
from plait.data.readers import documents
from plait.data.readers.files import Finder, Lines
from plait.data.readers.records import listed, medium
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_split, clean_texts
from plait.data.readers.table import parse
from plait.data.sample import BadRow

PLACEHOLDER = "<image>"
_SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "model": "gpt"}
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
        pictures = [
            picture for key in ("image", "images") for picture in listed(entry.get(key)) if picture
        ]
        turns = [
            _turn(turn, number, pictures)
            for number, turn in enumerate(documents.required(entry, name, (list,), "the turns"), 1)
        ]
        image = pictures or None
        row.texts = clean_texts(_answers(turns, with_image=image is not None))
        row.id = documents.optional(entry, "sample_id")
        if image is not None:
            embedded = medium(image, "image", finder)
            row.image, row.name, row.key = embedded.ref, embedded.name, embedded.key
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
        "conversations": [turns],
    }
    row.meta = {name: value for name, value in entry.items() if name not in _FIELDS}
    return row


def _turn(turn: Any, number: int, pictures: list[Any]) -> dict[str, str]:
    """A turn in LLaVA's words; pictures among its parts are added to ``pictures``."""
    by_role = isinstance(turn, dict) and "role" in turn
    speaker = documents.required(turn, "role" if by_role else "from", (str,), "who speaks")
    field = "content" if by_role else "value"
    value = documents.required(turn, field, (str, list) if by_role else (str,), "what is said")
    if speaker != "system" and speaker not in _SPEAKERS:
        known = "'human', 'gpt' or 'system'"
        raise Bad("wrong-type", f"turn {number} is from {shown(speaker)}, not {known}")
    if isinstance(value, list):
        value = "".join(_part(part, number, pictures) for part in value)
    return {"from": _SPEAKERS.get(speaker, speaker), "value": value}


def _part(part: Any, number: int, pictures: list[Any]) -> str:
    """A part of a content: its words, or the placeholder of a picture."""
    kind = documents.required(part, "type", (str,), "what the part is")
    if kind == "text":
        return str(documents.required(part, "text", (str,), "what is said"))
    if kind not in ("image", "image_url"):
        raise Bad(
            "wrong-type", f"turn {number} has a part of type {shown(kind)}, not text or image"
        )
    picture = part.get(kind) or part.get("url") or part.get("path")
    if picture is not None:  # else it is the next of the entry's own pictures
        pictures.append(
            picture["url"] if isinstance(picture, dict) and "url" in picture else picture
        )
    return PLACEHOLDER


def _answers(turns: list[dict[str, str]], *, with_image: bool) -> list[str]:
    """What ``gpt`` says. Raises `Bad` where pictures and placeholders differ."""
    placeholders = sum(turn["value"].count(PLACEHOLDER) for turn in turns)
    if placeholders != int(with_image):
        pictures = "one picture" if with_image else "no picture"
        raise Bad("placeholder", f"the turns hold {placeholders} {PLACEHOLDER}, but {pictures}")
    return [turn["value"] for turn in turns if turn["from"] == "gpt"]
