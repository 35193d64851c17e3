"""Text files in other encodings than UTF-8: which one it looks like, and reading it when told."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from plait.core.errors import DataError, shown

STATED: ContextVar[str | None] = ContextVar("encoding", default=None)
"""What the user says that text files without a byte order mark are written in; None: UTF-8."""


@contextmanager
def text_encoding(name: str | None) -> Iterator[None]:
    """Text files opened inside are read as ``name`` says, such as ``gbk``; None changes nothing.

    Raises:
        DataError: Python knows no such encoding of texts.
    """
    if name is not None:
        try:
            "a".encode(name)
            codecs.lookup(name).incrementaldecoder("surrogateescape").decode("a".encode(name), True)
        except (LookupError, TypeError, UnicodeError):
            known = "gbk, big5, shift_jis, latin-1, utf-16"
            raise DataError(f"unknown encoding {shown(name)}; known are {known} and more") from None
    token = STATED.set(name)
    try:
        yield
    finally:
        STATED.reset(token)


_BETWEEN = frozenset(b' \t\r\n,;:."{}[]#_/')


def of_wide(data: bytes) -> str | None:
    """UTF-16 as its zeros tell that it is, without a byte order mark; None for anything else.

    Commas, spaces and line ends are half zeros, in one of the two halves. Letters do not count: half
    of them are whole signs of Chinese the other way around. A file of bytes that has zeros by damage is
    UTF-8 but for them, or has two in one place: U+0000, which no text holds.
    """
    if 0 not in data or (data.count(0) * 4 < len(data) and _is_utf8(data)):
        return None
    pairs = list(zip(data[::2], data[1::2]))
    if (0, 0) in pairs:
        return None
    little = sum(second == 0 and first in _BETWEEN for first, second in pairs)
    big = sum(first == 0 and second in _BETWEEN for first, second in pairs)
    if little == big:
        return None
    return "utf-16-le" if little > big else "utf-16-be"


def _is_utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # its end may be cut within a sign
    except UnicodeDecodeError:
        return False
    return True


def stated_for(head: bytes) -> str | None:
    """What the user states, for a file that begins so: ``utf-16`` without a mark needs an order.

    Raises:
        DataError: nothing is stated, and it looks like UTF-16.
    """
    stated = STATED.get()
    if stated is None and (wide := of_wide(head)) is not None:
        raise DataError(f"looks like {wide} without a byte order mark: {option(wide)}")
    if stated is not None and codecs.lookup(stated).name == "utf-16":
        return of_wide(head) or "utf-16-le"
    return stated


def option(name: str) -> str:
    """How to read a file of an encoding."""
    return f"--encoding {name} reads it (data.encoding in recipes, encoding= in Python)"


def guess(data: bytes) -> str | None:
    """The encoding that bytes which are no UTF-8 look like; None when they look like none.

    Latin letters with accents stand alone between ASCII. For the others it counts which reading
    gives the commonest signs: kana, or the first level of each national set, which is sorted by use.
    """
    high = [place for place, byte in enumerate(data) if byte > 0x7F]
    if not high:
        return None
    alone = sum(
        ((data[place - 1 : place] or b" ") < b"\x80" and (data[place + 1 : place + 2] or b" ") < b"\x40")
        or ((data[place - 1 : place] or b" ") < b"\x80" and data[place + 1 : place + 2].islower())
        for place in high
    )  # fmt: skip
    if alone * 2 > len(high):
        return "cp1252" if any(0x80 <= data[place] < 0xA0 for place in high) else "latin-1"
    scores = {name: _commonness(data, name) for name in ("gbk", "big5", "shift_jis")}
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] > 0.5 else None


def _commonness(data: bytes, name: str) -> float:
    """Which share of the signs beyond ASCII is common in the language of an encoding."""
    try:
        signs = [sign for sign in data.decode(name) if sign > "\x7f"]
    except UnicodeDecodeError:
        return 0.0
    return sum(_is_common(sign.encode(name), sign, name) for sign in signs) / max(len(signs), 1)


def _is_common(code: bytes, sign: str, name: str) -> bool:
    if name == "shift_jis":
        return "\u3040" <= sign <= "\u30ff" or (0x88 <= code[0] <= 0x97 and len(code) == 2)
    if len(code) == 2 and name == "gbk":  # GB 2312's first level, in its own rows
        return 0xB0 <= code[0] <= 0xD7 and code[1] >= 0xA1
    return len(code) == 2 and 0xA4 <= code[0] <= 0xC6
