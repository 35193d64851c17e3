"""The process that searches: opened on one index, it answers jobs until the worker is gone.

The worker starts it (see `plait.serving.searching`) with one end of a pair of sockets.
"""

from __future__ import annotations

import base64
import logging
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from plait.core.errors import DataError, UserError
from plait.core.files import read_regular
from plait.serving.settings import Limits

if TYPE_CHECKING:
    from plait.retrieval.index import Index

log = logging.getLogger(__name__)

OUTSIDE = "outside the folders whose pictures may be shown"
MEMORY_BYTES = 8 << 30  # of the process: beyond it, it dies and is replaced


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
class Job:
    """One search.

    Attributes:
        vector: of unit length; None for the probe of readiness.
        modality: of the query.
        thumbnails: whether each hit gets a small JPEG.
        seconds: after which the search gives up.
        options: ``k``, ``where`` and ``find`` of `plait.retrieval.Index.search`.
    """

    vector: np.ndarray | None
    modality: str
    thumbnails: bool = False
    seconds: float = 30.0
    options: dict[str, Any] = field(default_factory=dict)


Answer = tuple[Literal["done", "unfit", "late", "unreadable"], Any]
"""How it ended, with the hits or a message."""


def main() -> int:
    """Opens the index that the worker names, and answers its jobs."""
    from plait.retrieval.index import open_index
    from plait.serving.watch import configure_logs

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
    from plait.retrieval.lance import LanceStore, SearchTimeout, UnreadableIndex

    until = time.monotonic() + job.seconds
    if job.vector is None:
        len(index)
        return "done", None
    if isinstance(index.store, LanceStore):
        index.store.seconds = job.seconds
    try:
        hits = index.search(job.vector, modality=job.modality, **job.options)
        for hit in hits:
            path, outside = hit.pop("path"), hit.pop("outside")  # nobody else's business
            hit["metadata"] = sendable(hit["metadata"])
            if job.thumbnails:
                if time.monotonic() > until:
                    return "late", None
                shown, problem = _thumbnail(path, outside, place)
                hit["thumbnail"], hit["thumbnail_problem"] = shown, problem
    except SearchTimeout:
        return "late", None
    except UnreadableIndex as error:
        return "unreadable", str(error)
    except UserError as error:
        return "unfit", str(error)
    return "done", hits


def _thumbnail(path: str | None, outside: bool, place: Place) -> tuple[str | None, str | None]:
    """(a data URL of a small JPEG or None, why there is none); a reason names no path."""
    from plait.retrieval.rows import small_jpeg

    if path is None:
        return None, "the row has no picture"
    if outside:
        return None, OUTSIDE
    try:
        data = read_regular(path, most_bytes=place.picture_bytes)
        made = small_jpeg(data, "", max_pixels=place.pixels)
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
    sys.exit(main())
