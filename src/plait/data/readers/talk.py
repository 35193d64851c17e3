"""Conversations in a cell or an entry: whose turns they are, what is answered, which picture is meant.

| as | turn |
|---|---|
| LLaVA, ShareGPT | ``{from: "human" or "gpt", value}`` |
| OpenAI, LLaMA-Factory | ``{role: "user" or "assistant", content}``; a content of parts may hold the picture |
| the_cauldron | ``{user, assistant}``; without a placeholder the picture comes first |

All become LLaVA's. In tables of text they are written as JSON, or as Python prints a list.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from plait.core.errors import shown
from plait.core.files import parse_json
from plait.data.readers import documents
from plait.data.readers.cells import listed, medium
from plait.data.readers.files import Finder
from plait.data.readers.rows import Bad, Row, clean_texts

PLACEHOLDER = "<image>"
NAMES = ("conversations", "messages", "conversation")
_SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "model": "gpt"}
_LISTED = 1 << 20  # characters of a conversation in a cell

Turn: TypeAlias = dict[str, str]


def turns_in(cell: Any) -> list[Any] | None:
    """The turns as a cell has them; None for anything else, such as a list of texts."""
    if isinstance(cell, str):
        if cell[:1] != "[" or cell[1:20].lstrip()[:1] != "{" or len(cell) > _LISTED:
            return None
        cell = _parsed(cell)
    if isinstance(cell, list) and cell and all(map(_is_turn, cell)):
        return cell
    return None


def _parsed(cell: str) -> Any:
    for parse in (parse_json, ast.literal_eval):
        try:
            return parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # a caption that begins with brackets
    return None


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, Mapping) and any(
        keys <= turn.keys()
        for keys in ({"role", "content"}, {"from", "value"}, {"user", "assistant"})
    )


def fill(row: Row, turns: Sequence[Any], pictures: Sequence[Any], finder: Finder) -> bool:
    """Gives a row the answers as its texts, the turns as a label, and the picture.

    Args:
        row: what to fill.
        turns: of one conversation, in any of the forms above.
        pictures: that the entry names beside its turns; a content may add some.
        finder: where the files are that they name.

    Returns:
        Whether there is a picture: a conversation may be about none.

    Raises:
        Bad: turns of another form, several pictures or one that cannot be had, as many placeholders
            as there are no pictures, or no answer.
    """
    every = list(pictures)
    said: list[Turn] = []
    for number, turn in enumerate(turns, 1):
        said += _said(turn, number, every)
    placeholders = sum(turn["value"].count(PLACEHOLDER) for turn in said)
    if every and not placeholders and isinstance(turns[0], Mapping) and "assistant" in turns[0]:
        said[0]["value"] = PLACEHOLDER + said[0]["value"]
        placeholders = 1
    # the picture first: where only the text is missing, it is known
    if every:
        embedded = medium(every, "image", finder)
        row.image, row.name = embedded.ref, embedded.name
        row.key, row.origin = embedded.key, embedded.origin
    row.labels = {**row.labels, "conversations": [said]}
    if placeholders != len(every):
        told = "one picture" if every else "no picture"
        raise Bad(
            "placeholder",
            f"the turns hold {placeholders} {PLACEHOLDER}, but {told}: write it once where the "
            "picture stands",
        )
    row.texts = clean_texts([turn["value"] for turn in said if turn["from"] == "gpt"])
    return bool(every)


def _said(turn: Any, number: int, pictures: list[Any]) -> list[Turn]:
    """A turn in LLaVA's words; pictures among its parts are added to ``pictures``."""
    if isinstance(turn, Mapping) and "assistant" in turn:
        return [
            {"from": speaker, "value": str(turn.get(name) or "")}
            for speaker, name in (("human", "user"), ("gpt", "assistant"))
        ]
    by_role = isinstance(turn, Mapping) and "role" in turn
    speaker = documents.required(turn, "role" if by_role else "from", (str,), "who speaks")
    field = "content" if by_role else "value"
    value = documents.required(turn, field, (str, list) if by_role else (str,), "what is said")
    if speaker != "system" and speaker not in _SPEAKERS:
        known = "'human', 'gpt' or 'system'"
        raise Bad("wrong-type", f"turn {number} is from {shown(speaker)}, not {known}")
    if isinstance(value, list):
        value = "".join(_part(part, number, pictures) for part in value)
    return [{"from": _SPEAKERS.get(speaker, speaker), "value": value}]


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


def pictures_of(*cells: Any) -> list[Any]:
    """The pictures that cells name, those without any left out."""
    return [picture for cell in cells for picture in listed(cell) if picture not in (None, "")]
