"""Parquet pairs tables, one file or several, with paths or embedded pictures.

A value that repeats is stored once, and whole pages shrink to nothing: a file of kilobytes can hold
gigabytes. What a file unpacks to is told from its metadata before anything is read, and counted
batch by batch, in the form that stores repeated values once, before it is unpacked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plait.core.errors import DataError
from plait.core.files import cache_home, digest, regular, replacing
from plait.data.readers import arrow
from plait.data.readers.files import Finder
from plait.data.readers.rows import Found, Rows

IN_MEMORY = 256 << 20
"""Sets of files with more bytes than this are copied to the cache as Arrow, and mapped."""

MOST_UNPACKED = 1 << 30
"""Bytes that any file may unpack to; larger files to `MOST_RATIO` times their size."""
MOST_RATIO = 20
_BYTES_A_ROW = 256  # of a row as a sample in memory, however little the file says of it
_PIECE = 64 << 20  # unpacked at once


def read(found: Found) -> Rows:
    """Rows of every file."""
    return read_files(found.files, found, wide=True)


def read_files(paths: Sequence[Path], found: Found, *, wide: bool) -> Rows:
    """Rows of some files; with ``wide`` named pictures may lie in subfolders."""
    small = sum(path.stat().st_size for path in paths) <= IN_MEMORY
    parts = [arrow.Part(path, table(path, small), found.splits.get(path)) for path in paths]
    folders = list(dict.fromkeys(path.parent for path in paths))
    finder = Finder([*folders, found.folder], wide=folders if wide else (), leave=found.leave)
    yield from arrow.read(parts, found, finder)


def table(path: Path, in_memory: bool) -> pa.Table:
    """The table of a Parquet file: in memory, or mapped from an Arrow copy in the cache.

    Raises:
        DataError: the file is damaged.
    """
    status = regular(path, None)
    try:
        with pq.ParquetFile(path) as file:
            limit = max(MOST_UNPACKED, MOST_RATIO * status.st_size)
            stated = _stated_bytes(file.metadata)
            if stated > limit:
                raise _bomb(path, stated, status.st_size)
            schema = file.schema_arrow
            if in_memory and stated <= MOST_UNPACKED:
                parts: list[pa.RecordBatch] = []
                total = 0
                for part in _parts(path, file, limit):
                    total += part.nbytes
                    if total > MOST_UNPACKED:
                        break
                    parts.append(part)
                else:
                    return pa.Table.from_batches(parts, schema).combine_chunks()
                del parts
            name = digest(str(path.resolve()), f"{status.st_size} {status.st_mtime_ns}")
            copy = cache_home() / "arrow" / f"{name}.arrow"
            if not copy.exists():
                _copy(path, file, copy, limit)
    except (pa.ArrowException, LookupError, ValueError, OSError, MemoryError) as error:
        raise DataError(f"is no readable Parquet file: {error}", path=path) from error
    return pa.ipc.open_file(pa.memory_map(os.fspath(copy))).read_all()


def _bomb(path: Path, unpacked: int, size: int) -> DataError:
    return DataError(
        f"unpacks to more than {unpacked / 1e9:.1f} GB from {size / 1e6:.1f} MB, at most "
        f"{MOST_UNPACKED / 1e9:.1f} GB or {MOST_RATIO} times the size are read: write it again with "
        "less in a file",
        path=path,
    )


def _stated_bytes(metadata: pq.FileMetaData) -> int:
    """What a file says that it unpacks to; repeated values count once here."""
    # Of row groups alone: asked about a column whose statistics are damaged, pyarrow ends the process.
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return int(metadata.num_rows) * _BYTES_A_ROW + sum(group.total_byte_size for group in groups)


def _parts(path: Path, file: pq.ParquetFile, limit: int) -> Iterator[pa.RecordBatch]:
    """Batches of a file, each of about `_PIECE` bytes or one row.

    Raises:
        DataError: all of them have more than ``limit`` bytes.
    """
    total = 0
    for batch in _batches(path, file.metadata):
        size = sum(map(_unpacked, batch.columns))
        total += size
        if total > limit:
            raise _bomb(path, total, regular(path, None).st_size)
        pieces = min(-(-size // _PIECE), len(batch)) or 1
        rows = -(-len(batch) // pieces) or 1
        for start in range(0, len(batch), rows):
            some = pa.Table.from_batches([batch.slice(start, rows)]).cast(file.schema_arrow)
            some.validate(full=True)  # lengths, and that texts are UTF-8
            yield from some.combine_chunks().to_batches()


def _batches(path: Path, metadata: pq.FileMetaData) -> Iterator[pa.RecordBatch]:
    """Batches of at most 1,000 rows, repeated values stored once."""
    columns = [metadata.schema.column(place) for place in range(metadata.num_columns)]
    names = [one.path for one in columns if one.physical_type == "BYTE_ARRAY"]
    for number in range(metadata.num_row_groups):
        done = 0
        try:
            with pq.ParquetFile(path, read_dictionary=names) as once:
                for batch in once.iter_batches(1000, row_groups=[number]):
                    yield batch
                    done += len(batch)
            continue
        except pa.ArrowNotImplementedError:  # inner columns that are stored once only at first
            largest = metadata.row_group(number).total_byte_size
        # such a column is read as it unpacks: by so few rows that they cannot be too large
        rows = min(max(_PIECE // max(largest, 1), 1), 1000)
        outer = [name for name in names if "." not in name]
        with pq.ParquetFile(path, read_dictionary=outer) as flat:
            for batch in flat.iter_batches(rows, row_groups=[number]):
                skipped = min(done, len(batch))
                done -= skipped
                if skipped < len(batch):
                    yield batch.slice(skipped)


def _unpacked(array: pa.Array) -> int:
    """Bytes of an array with every repeated value written out."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        values = array.dictionary
        if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
            lengths = pc.binary_length(values)
            return int(pc.sum(lengths.take(array.indices)).as_py() or 0) + 8 * len(array)
        return len(array) * 8
    if pa.types.is_struct(kind):
        return sum(map(_unpacked, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _unpacked(array.flatten()) + 8 * len(array)
    return int(array.nbytes)


def _copy(path: Path, file: pq.ParquetFile, target: Path, limit: int) -> None:
    with (
        replacing(target) as temporary,
        pa.OSFile(os.fspath(temporary), "wb") as sink,
        pa.ipc.new_file(sink, file.schema_arrow) as writer,
    ):
        for batch in _parts(path, file, limit):
            writer.write_batch(batch)
