"""Where the members of an uncompressed tar are: its headers alone, several times tarfile's speed.

POSIX ustar, with the long names of GNU (type ``L``) and pax (type ``x``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from plait.data.readers.encoding import guess

BLOCK = 512
_MOST_NAME = 1 << 20  # bytes of a record that holds a long name


class TarError(Exception):
    """The tar is damaged; the message says how and where."""


def members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the data, size) of each regular file, in order.

    Raises:
        TarError: a damaged header, or an end in the middle of a member.
        OSError: the file cannot be read.
    """
    total = path.stat().st_size
    long_name = ""
    long_size = -1
    with path.open("rb") as file:
        position = 0
        while header := file.read(BLOCK):
            if not header.strip(b"\0"):
                return  # the end mark
            _check(header, position)
            kind = header[156:157]
            size = _number(header[124:136], position) if long_size < 0 else long_size
            if size < 0:  # it would lead back to headers that were read
                raise TarError(f"the header at byte {position} is damaged")
            start = position + BLOCK
            position = start + -(-size // BLOCK) * BLOCK
            if start + size > total:
                name = long_name or _text(header[:100])
                raise TarError(f"it ends inside {name}, at byte {total} of {start + size}")
            if kind in b"LxgK":
                if size > _MOST_NAME:
                    raise TarError(f"the record at byte {start} has {size} bytes")
                data = file.read(size)
                if kind == b"L":
                    long_name = _text(data)
                elif kind == b"x":
                    try:
                        fields = _pax(data)
                        long_size = int(fields.get("size", "-1"))
                    except ValueError:
                        raise TarError(f"the record at byte {start} is damaged") from None
                    long_name = fields.get("path", long_name)
            else:
                if kind in (b"0", b"\0", b"7"):
                    yield long_name or _name(header), start, size
                long_name, long_size = "", -1
            file.seek(position)


def _check(header: bytes, position: int) -> None:
    """Compares the header's checksum: the sum of its bytes with spaces in the checksum's place."""
    if len(header) < BLOCK:
        raise TarError(f"it ends inside a header, at byte {position + len(header)}")
    expected = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _number(header[148:156], position) != expected:
        raise TarError(f"the header at byte {position} is damaged")


def _number(field: bytes, position: int) -> int:
    if field[0] & 0x80:  # base 256, for files above 8 GiB
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise TarError(f"the header at byte {position} is damaged") from None


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return _decoded(field.split(b"\0", 1)[0])


def _decoded(name: bytes) -> str:
    """A name; tar knows no encoding, and old tools write that of their machine.

    What it may be is guessed, else every byte is a character: two names never become one.
    """
    try:
        return name.decode()
    except UnicodeDecodeError:
        try:
            return name.decode(guess(name) or "latin-1")
        except UnicodeDecodeError:
            return name.decode("latin-1")


def _pax(data: bytes) -> dict[str, str]:
    """Records of length, space, key, equals sign, value and newline. Raises ValueError."""
    fields = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if int(length) <= len(length) + 1:
            raise ValueError("a record shorter than its own length")
        record, data = data[: int(length)], data[int(length) :]
        key, _, value = record[len(length) + 1 : -1].partition(b"=")
        fields[key.decode()] = _decoded(value)
    return fields
