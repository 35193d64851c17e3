"""What strangers send, made harmless to print, to store and to parse."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MOST_DEPTH = 64  # of nested lists and objects

# Controls of terminals (C0 without tab and newline, DEL, C1), marks that turn the direction of
# writing, and halves of surrogate pairs, which no encoding takes.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_ENDS = re.compile("\r\n?|\u2028|\u2029")


def clean(text: str) -> str:
    """The text with a replacement character for all that a terminal would obey rather than show."""
    return _HARMFUL.sub("\N{REPLACEMENT CHARACTER}", _LINE_ENDS.sub("\n", text))


def one_line(text: str, most: int) -> str:
    """`clean`, on one line, cut where it is longer than ``most`` characters."""
    line = " ".join(clean(text[: 4 * most]).split())
    return line if len(line) <= most else f"{line[:most]}..."


def bounded_json(text: str | bytes, *, most: int, depth: int = MOST_DEPTH) -> Any:
    """The value of JSON text.

    Args:
        text: to parse.
        most: characters (bytes).
        depth: of nesting.

    Raises:
        ValueError: too long, too deep, no JSON, or a number that is none (NaN, 1e999).
    """
    if len(text) > most:
        raise ValueError(f"there are {len(text):,} characters, more than {most:,}")
    try:
        value = json.loads(text, parse_constant=_number, parse_float=_number)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
    if is_deeper(value, depth):
        raise ValueError(f"lists or objects are nested deeper than {depth}")
    return value


def is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects of a JSON value are nested deeper than that."""
    layer = [value]
    for _ in range(depth + 1):
        layer = [
            inner
            for one in layer
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not layer:
            return False
    return True


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return value
