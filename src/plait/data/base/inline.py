"""Pictures inside strings: data URLs and base64, read as browsers read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from plait.core.base64 import from_base64
from plait.modalities.image.structure import kind_of

OCTETS: Final = ("", "application/octet-stream", "binary/octet-stream")  # says nothing of the kind

_HEAD_CHARACTERS = 1000  # in which the head of a data URL must end
_DATA_URL = re.compile(r"\s*data:(?!\s)([^,;]*)((?:;[^,;]*)*)(,?)", re.IGNORECASE)
_MIME = re.compile(r"[\w.+*-]+/[\w.+*-]+")

# What stands before base64 by mistake: the head of a data URL without its beginning, a quotation
# mark, Python's b'...'.
_BEFORE = re.compile(r"""\s*(?:[\w.+/;:=-]{0,100}base64,)?\s*(?:b?['"])?""", re.IGNORECASE)
_PROBE = 128  # characters of base64 that are decoded to see what it is
_SHORTEST = 24
_DIB_SIZES = (12, 40, 52, 56, 64, 108, 124)  # of a bitmap's second header

# Not taken, and no words either.
_OTHERS = (
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x01\x00\x01\x00", "ICO"),
    (b"8BPS\x00", "PSD"),
    (b"<svg", "SVG"),
    (b"%PDF-", "PDF"),
)


@dataclass(frozen=True, slots=True)
class DataUrl:
    """The head of a data URL.

    Attributes:
        mime: its type in lower case, without parameters; empty where none is given.
        is_base64: whether its body is base64 rather than percent-encoded text.
        start: of the body; None when there is no comma before one.
    """

    mime: str
    is_base64: bool
    start: int | None

    @property
    def is_image(self) -> bool:
        """Whether it says that it is a picture."""
        return self.mime.startswith("image/")


def data_url(text: str) -> DataUrl | None:
    """The head when a string is a data URL; None for words, such as ``data: 5, 6 and 7``."""
    if "data:" not in text[:32].lower():
        return None
    head = _DATA_URL.match(text[:_HEAD_CHARACTERS])
    if head is None:
        return None
    mime = head[1].strip().lower()
    is_base64 = head[2].rpartition(";")[2].strip().lower() == "base64"
    if not (_MIME.fullmatch(mime) or (not mime and is_base64)):
        return None
    return DataUrl(mime, is_base64, head.end() if head[3] else None)


def kind_within(text: str) -> str | None:
    """The format of a picture that a string spells out in base64 or in hexadecimal digits.

    Formats that are not read count too: nobody means such a string as words.
    """
    before = _BEFORE.match(text[:300])
    assert before is not None
    lines = text[before.end() : before.end() + 2 * _PROBE].split()
    if not lines or len(lines[0]) < _SHORTEST or not lines[0].isascii():  # words are shorter
        return None
    head = "".join(lines)[:_PROBE].rstrip("'\"")
    probes: list[bytes] = []
    try:
        probes.append(from_base64(head[: len(head) // 4 * 4]))
    except ValueError:
        return None  # hexadecimal digits are base64 too
    digits = head.removeprefix("0x")
    if re.fullmatch(r"[0-9a-fA-F]+", digits):
        probes.append(bytes.fromhex(digits[: len(digits) // 2 * 2]))
    return next((kind for kind in map(_sure_kind, probes) if kind is not None), None)


def is_picture_text(text: str) -> bool:
    """Whether a string is a picture: as a data URL, in base64 or in hexadecimal digits."""
    head = data_url(text)
    return head.is_image if head is not None else kind_within(text) is not None


def _sure_kind(data: bytes) -> str | None:
    """As `kind_of`, without taking the two letters of a bitmap for enough, and other formats too."""
    kind = kind_of(data)
    if kind == "BMP":
        is_bitmap = data[6:10] == bytes(4) and int.from_bytes(data[14:18], "little") in _DIB_SIZES
        return kind if is_bitmap else None
    if kind is None and data[4:8] == b"ftyp":
        return "HEIF or video"
    others = (name for signature, name in _OTHERS if data.startswith(signature))
    return kind or next(others, None)
