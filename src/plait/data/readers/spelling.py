"""Other spellings of a file's name: as other programs write the same path, or another computer had it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

_FILE = re.compile(r"file:(//(localhost)?(?=/))?", re.IGNORECASE)
_DRIVE = re.compile(r"/?[A-Za-z]:(?=/)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_MOST_PARTS = 64


def local(name: str) -> str:
    """A ``file:`` URL as a path; any other name as it is."""
    return name[match.end() :] if (match := _FILE.match(name)) else name


def others(name: str) -> Iterator[str]:
    """The name as it was before a program encoded or a person copied it, each at most once.

    Percent signs decoded, invisible signs, quotation marks and the spaces around parts removed.
    """
    plain = name.replace("\\", "/")
    seen = {name, plain}
    for other in (_decoded(plain), _tidy(plain), _tidy(_decoded(plain))):
        if other and other not in seen:
            seen.add(other)
            yield other


def _decoded(name: str) -> str:
    return unquote(name, errors="strict") if _PERCENT.search(name) and _is_utf8(name) else name


def _is_utf8(name: str) -> bool:
    try:
        return "\0" not in unquote(name, errors="strict")
    except UnicodeDecodeError:
        return False


def _tidy(name: str) -> str:
    seen = _UNSEEN.sub("", name).strip()
    if len(seen) > 1 and seen[0] == seen[-1] and seen[0] in "'\"`":
        seen = seen[1:-1]
    return "/".join(part.strip() for part in seen.split("/"))


def tails(name: str) -> Iterator[tuple[str, str]]:
    r"""(folder, rest) of a path of another computer, the longest rest first.

    ``C:\data\a\1.jpg`` gives ``data/a/1.jpg``, ``a/1.jpg`` and ``1.jpg``. A name that leads upwards
    gives none: it says where its file is.
    """
    plain = _tidy(_decoded(name.replace("\\", "/")))
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > _MOST_PARTS:
        return
    for count in range(1, len(parts)):
        yield "/".join(parts[:count]), "/".join(parts[count:])


def is_of_a_computer(name: str) -> bool:
    """Whether a name says where a file is on some computer or in some store, not within a folder."""
    plain = name.replace("\\", "/")
    return plain.startswith("/") or any(one.match(plain) for one in (_DRIVE, _SCHEME))


def difference(stated: str, name: str) -> str:
    """In which way a stated name differs from the one that was found, for a note."""
    parts = [
        [part for part in unicodedata.normalize("NFC", one).split("/") if part not in ("", ".")]
        for one in (_tidy(_decoded(local(stated).replace("\\", "/"))), name)
    ]
    if parts[0] == parts[1]:
        return "are encoded, quoted or spaced otherwise than on the disk"
    return "start from a folder of another computer"
