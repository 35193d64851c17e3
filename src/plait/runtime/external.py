"""Which further files an ONNX graph names: their places are the graph's to say, so they are checked.

A walk over the protobuf fields that can hold tensors; weights are stepped over, not read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from plait.core.errors import ModelError

_FIELDS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Message, and its fields that are messages of ONNX's schema worth a look."""
_DEEPEST: Final = 100


def external_files(path: Path) -> set[str]:
    """The locations of weights that an ONNX file keeps elsewhere, as it spells them.

    Raises:
        ModelError: it is no protobuf message.
    """
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty")
    found: set[str] = set()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pending = [("model", 0, len(data), 0)]
            while pending:
                kind, start, end, depth = pending.pop()
                if kind == "entry":
                    parts = dict(_fields(data, start, end))
                    if data[slice(*parts.get(1, (0, 0)))] == b"location":
                        found.add(data[slice(*parts.get(2, (0, 0)))].decode("utf-8"))
                    continue
                if depth > _DEEPEST:
                    raise ValueError("graphs inside graphs without end")
                inner = _FIELDS[kind]
                pending += [
                    (inner[number], *span, depth + 1)
                    for number, span in _fields(data, start, end)
                    if number in inner
                ]
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path} is no ONNX graph: {error}") from error
    return found


def _fields(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """(number, span) of the fields of a message that have a length. Raises ValueError."""
    while place < end:
        tag, place = _varint(data, place, end)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(data, place, end)
        elif kind == 1:
            place += 8
        elif kind == 5:
            place += 4
        elif kind == 2:
            size, place = _varint(data, place, end)
            yield tag >> 3, (place, place + size)
            place += size
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
    if place != end:
        raise ValueError("a field ends outside of its message")


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number without end")
