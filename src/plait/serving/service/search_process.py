"""The process that searches: opened on one index, it answers jobs until the worker is gone.

The worker starts it (see `plait.serving.service.searching`) with one end of a pair of sockets.
"""

from __future__ import annotations

import base64
import logging
import os
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from plait.core.errors import DataError, UserError
from plait.core.files import read_regular
from plait.serving.base.settings import Limits

if TYPE_CHECKING:
    from plait.retrieval.index.index import Index

log = logging.getLogger(__name__)

OUTSIDE = "outside the folders whose pictures may be shown"
MEMORY_BYTES = 8 << 30  # of the process: beyond it, it dies and is replaced
THUMBNAIL, LARGE = 256, 2048  # pixels of a picture's longer side


@dataclass(frozen=True)
class Place:
    """Which index is searched, and what of its pictures may be shown.

    Attributes:
        folder: of the index.
        roots, allow_outside: see `plait.retrieval.open_index`.
        picture_bytes, pixels: of a picture that a thumbnail is made of.
    """

    folder: str
    roots: tuple[str, ...] = ()
    allow_outside: bool = False
    picture_bytes: int = Limits.picture_bytes
    pixels: int = Limits.pixels


@dataclass(frozen=True)
class Search:
    """The rows nearest to a vector, or to a row of the index.

    Attributes:
        like: the vector, of unit length, or the row's key.
        modality: of what the vector was made from.
        thumbnails: whether each hit gets a small JPEG.
        files: whether each hit tells of its file, and its row's key.
        options: ``k``, ``where`` and ``find`` of `plait.retrieval.Index.search`.
        seconds: after which the search gives up.
    """

    like: np.ndarray | str
    modality: str | None = None
    thumbnails: bool = False
    files: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float = 30.0


@dataclass(frozen=True)
class Show:
    """One row with its picture, large."""

    key: str
    seconds: float = 30.0


@dataclass(frozen=True)
class Columns:
    """What filters can name."""

    seconds: float = 30.0


@dataclass(frozen=True)
class Probe:
    """Nothing, so that an answer tells that searches could begin now."""

    seconds: float = 30.0


Job: TypeAlias = Search | Show | Columns | Probe
Answer = tuple[Literal["done", "unfit", "late", "unreadable"], Any]
"""How it ended, with the hits or a message."""


def main() -> int:
    """Opens the index that the worker names, and answers its jobs."""
    from plait.retrieval.index.index import open_index
    from plait.serving.base.logs import configure_logs

    pipe = Connection(int(sys.argv[1]))
    try:
        place: Place = pipe.recv()
        configure_logs("warning")
        _limit_memory()
        try:
            index = open_index(
                Path(place.folder), roots=place.roots, allow_outside=place.allow_outside
            )
        except UserError as error:
            pipe.send(("unfit", str(error)))
            return error.exit_code
        pipe.send(("done", None))
        while True:
            pipe.send(_answer(index, place, pipe.recv()))
    except (EOFError, OSError):  # the worker is gone, or no longer wants this process
        return 0


def _limit_memory() -> None:
    if find_spec("resource") is None:  # not on Windows
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _answer(index: Index, place: Place, job: Job) -> Answer:
    from plait.retrieval.store.lance import LanceStore, SearchTimeout, UnreadableIndex

    if isinstance(index.store, LanceStore):
        index.store.seconds = job.seconds
    try:
        if isinstance(job, Search):
            return "done", _found(index, place, job)
        if isinstance(job, Show):
            return "done", _sent(index, place, index.show(job.key), LARGE, files=True)
        if isinstance(job, Columns):
            return "done", index.columns()
        len(index)
    except (SearchTimeout, TimeoutError):
        return "late", None
    except UnreadableIndex as error:
        return "unreadable", str(error)
    except UserError as error:
        return "unfit", str(error)
    return "done", None


def _found(index: Index, place: Place, job: Search) -> list[dict[str, Any]]:
    until = time.monotonic() + job.seconds
    if isinstance(job.like, str):
        hits = index.similar(job.like, **job.options)
    else:
        hits = index.search(job.like, modality=job.modality, **job.options)
    if hits.gone:
        log.warning("%d pictures that are no longer on the disk were left out", hits.gone)
    found = []
    for hit in hits:
        if job.thumbnails and time.monotonic() > until:
            raise TimeoutError
        found.append(_sent(index, place, hit, THUMBNAIL if job.thumbnails else None, job.files))
    return found


def _sent(
    index: Index, place: Place, hit: dict[str, Any], side: int | None, files: bool
) -> dict[str, Any]:
    """A hit without what is nobody else's business, with its picture in so many pixels."""
    key, path, outside = hit.pop("key"), hit.pop("path"), hit.pop("outside")
    hit["metadata"] = sendable(hit["metadata"])
    if files:
        hit["key"], hit["file"] = key, _file(index, path, hit["metadata"])
    if side is not None:
        hit["thumbnail"], hit["thumbnail_problem"] = _picture(path, outside, place, side)
    return hit


def _file(index: Index, path: str | None, metadata: dict[str, Any]) -> dict[str, str | None] | None:
    """Name, folder and date of a picture's file, as far as they lie below a root of the index."""
    from plait.retrieval.index.rows import THUMBNAILS

    inside = None if path is None else index.place_of(path)
    if path is None or inside is None:
        return None
    if inside.parts[0] == THUMBNAILS and "source" in metadata:  # of a shard or a table
        metadata["source"] = os.path.basename(str(metadata["source"]))  # noqa: PTH119  no folder of the machine
        return {"name": metadata["source"], "folder": None, "date": None}
    try:
        changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.stat(path).st_mtime))  # noqa: PTH116  a string
    except (OSError, OverflowError, ValueError):  # gone, or a date of no calendar
        changed = None
    folder = sendable(inside.parent.as_posix())
    name = sendable(inside.name)
    return {"name": name, "folder": None if folder == "." else folder, "date": changed}


def _picture(
    path: str | None, outside: bool, place: Place, side: int
) -> tuple[str | None, str | None]:
    """(a data URL of a JPEG of at most so many pixels or None, why there is none).

    Made anew, so that a browser gets nothing that the file holds beside its pixels; a reason names
    no path.
    """
    from plait.retrieval.index.rows import small_jpeg

    if path is None:
        return None, "the row has no picture"
    if outside:
        return None, OUTSIDE
    try:
        data = read_regular(path, most_bytes=place.picture_bytes)
        made = small_jpeg(data, "", max_pixels=place.pixels, side=side)
    except DataError as error:
        return None, error.problem
    return f"data:image/jpeg;base64,{base64.b64encode(made).decode('ascii')}", None


def sendable(value: Any) -> Any:
    """JSON that every reader takes: integers beyond 64 bits and half surrogates become text."""
    if isinstance(value, dict):
        return {sendable(key): sendable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [sendable(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return str(value)
    return value


if __name__ == "__main__":
    from plait.serving.service import (
        search_process,  # whose classes the jobs are of, unlike __main__'s
    )

    sys.exit(search_process.main())
