"""Base64 as people and programs write it."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

_SPACES = b" \t\n\r\f\v"


def from_base64(text: str, *, url: bool = False) -> bytes:
    """The bytes of base64 text: line breaks and missing padding do no harm, nor ``-_`` for ``+/``.

    Args:
        text: as WHATWG's "forgiving base64", or RFC 4648's alphabet for URLs.
        url: whether it stands in a URL, where ``%2B`` is a plus.

    Raises:
        ValueError: other characters, two alphabets mixed, padding inside, or a lost character.
    """
    try:
        data = text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("there are characters that base64 does not have") from None
    if url and b"%" in data:
        data = unquote_to_bytes(data)
    data = data.translate(None, _SPACES)
    if len(data) % 4 == 0 and data.endswith(b"="):
        data = data[:-2] if data.endswith(b"==") else data[:-1]
    if b"=" in data:
        raise ValueError("there is padding (=) in the wrong place")
    if len(data) % 4 == 1:
        raise ValueError("its length fits no bytes: something was lost")
    if b"-" in data or b"_" in data:
        if b"+" in data or b"/" in data:
            raise ValueError("two alphabets are mixed (-_ and +/)")
        data = data.replace(b"-", b"+").replace(b"_", b"/")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        raise ValueError("there are characters that base64 does not have") from None
