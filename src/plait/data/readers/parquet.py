"""Parquet pairs tables, one file or several, with paths or embedded pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from plait.core.errors import DataError
from plait.core.files import cache_home, digest, replacing
from plait.data.readers import arrow
from plait.data.readers.files import Finder
from plait.data.readers.rows import Found, Rows

IN_MEMORY = 256 << 20
"""Sets of files with more bytes than this are copied to the cache as Arrow, and mapped."""


def read(found: Found) -> Rows:
    """Rows of every file."""
    return read_files(found.files, found, wide=True)


def read_files(paths: Sequence[Path], found: Found, *, wide: bool) -> Rows:
    """Rows of some files; with ``wide`` named pictures may lie in subfolders."""
    small = sum(path.stat().st_size for path in paths) <= IN_MEMORY
    parts = [arrow.Part(path, table(path, small), found.splits.get(path)) for path in paths]
    folders = list(dict.fromkeys(path.parent for path in paths))
    finder = Finder([*folders, found.folder], wide=folders if wide else ())
    yield from arrow.read(parts, found, finder)


def table(path: Path, in_memory: bool) -> pa.Table:
    """The table of a Parquet file: in memory, or mapped from an Arrow copy in the cache.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            if in_memory:
                return file.read()
            status = path.stat()
            name = digest(str(path.resolve()), f"{status.st_size} {status.st_mtime_ns}")
            copy = cache_home() / "arrow" / f"{name}.arrow"
            if not copy.exists():
                _copy(file, copy)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"is no readable Parquet file: {error}", path=path) from error
    return pa.ipc.open_file(pa.memory_map(os.fspath(copy))).read_all()


def _copy(file: pq.ParquetFile, target: Path) -> None:
    with (
        replacing(target) as temporary,
        pa.OSFile(os.fspath(temporary), "wb") as sink,
        pa.ipc.new_file(sink, file.schema_arrow) as writer,
    ):
        for batch in file.iter_batches(1000):
            writer.write_batch(batch)
