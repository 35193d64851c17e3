"""Features of frozen towers on disk, so that a picture is encoded once, not once an epoch.

A folder of the cache belongs to one tower state: its weights, its preprocessing, the engine and
its precision, and the augmentation slot all go into the folder's name, so that a change of any of
them finds nothing. Within it rows are found by the identity of the file or text, so that new data
computes new rows only.

Each `RowStore.add` writes one ``.npy`` file of (key, row) records in one step; files are memory
mapped, and their checksum is part of their name.
"""

from __future__ import annotations

import io
import mmap
import os
import shutil
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool

from plait.core.files import cache_home, digest, replacing, write_json

KEY_BYTES: Final = 16
MOST_FILES: Final = 24  # beyond this they are merged into one
LIMIT_GIB: Final = 8.0  # least recently used folders go when all features together exceed this
LIMIT_VARIABLE: Final = "PLAIT_CACHE_LIMIT"
_PASSED_OVER: Final = "passed_over.json"
_TAKEN: Final = "taken.json"


class CacheWarning(UserWarning):
    """A file of the cache was damaged; its rows are computed again."""


class RowStore:
    """Rows of one width, found by key.

    Args:
        folder: made when the first row is added.
        dtype: of the rows' numbers.

    Damaged files are removed with a `CacheWarning`. Several processes may add at a time: each
    file has a name of its own, and rows already there are only stored twice.
    """

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        self.folder, self.dtype = folder, np.dtype(dtype)
        self._places: dict[bytes, tuple[int, int]] = {}
        self._parts: list[np.ndarray] = []
        self._files: list[Path] = []
        for path in sorted(folder.glob("*.npy")) if folder.is_dir() else []:
            self._open(path)
        if self._files:
            os.utime(folder)  # last use, see `prune`

    def __len__(self) -> int:
        return len(self._places)

    @property
    def width(self) -> int | None:
        """Numbers in a row; None while empty."""
        return int(self._parts[0]["row"].shape[1]) if self._parts else None

    def find(self, keys: Sequence[bytes]) -> Bool[np.ndarray, " n"]:
        """Which keys are there."""
        return np.array([key in self._places for key in keys], dtype=bool)

    def rows(self, keys: Sequence[bytes]) -> np.ndarray:
        """(n, width) rows of keys that are all there."""
        result = np.empty((len(keys), self.width or 0), self.dtype)
        places = np.array([self._places[key] for key in keys], np.int64).reshape(-1, 2)
        for number, part in enumerate(self._parts):
            here = np.flatnonzero(places[:, 0] == number)
            result[here] = part["row"][places[here, 1]]
        return result

    def add(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Stores rows on disk, and finds them from now on."""
        if not len(keys):
            return
        record = np.dtype([("key", "u1", (KEY_BYTES,)), ("row", self.dtype, (rows.shape[1],))])
        part = np.empty(len(keys), record)
        part["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        part["row"] = rows
        if len(self._files) >= MOST_FILES:
            self._merge(part)
        else:
            self._remember(self._write([part]))

    def _write(self, parts: Sequence[np.ndarray]) -> Path:
        """One file of all parts, in memory a part at a time."""
        described = np.lib.format.header_data_from_array_1_0(parts[0])
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {**described, "shape": (sum(map(len, parts)),)}
        )
        checksum = zlib.crc32(header.getvalue())
        for part in parts:
            checksum = zlib.crc32(part.view(np.uint8).data, checksum)
        path = self.folder / f"{os.urandom(6).hex()}-{checksum:08x}.npy"
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(header.getvalue())
            for part in parts:
                file.write(part.view(np.uint8).data)
                _let_go(part)
        return path

    def _merge(self, part: np.ndarray) -> None:
        old = self._files
        merged = self._write([*self._parts, part])
        self._places, self._parts, self._files = {}, [], []
        self._remember(merged)
        for path in old:
            path.unlink(missing_ok=True)

    def _open(self, path: Path) -> None:
        try:
            sound = path.stem.endswith(f"-{_checksum(path):08x}")
        except FileNotFoundError:  # merged away by another process
            return
        except (OSError, ValueError):  # unreadable, or empty
            sound = False
        if sound:
            self._remember(path)
            return
        warnings.warn(
            f"{path} is damaged; it is removed, and what it held is computed again",
            CacheWarning,
            stacklevel=4,
        )
        path.unlink(missing_ok=True)

    def _remember(self, path: Path) -> None:
        part = np.load(path, mmap_mode="r", allow_pickle=False)
        number = len(self._parts)
        self._parts.append(part)
        self._files.append(path)
        keys = np.ascontiguousarray(part["key"]).tobytes()
        for row in range(len(part)):
            self._places[keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]] = (number, row)
        _let_go(part)


class FeatureCache:
    """Where the features of towers are kept.

    Args:
        root: default ``features`` in plait's cache folder.
        limit: GiB that all features together may take; default ``$PLAIT_CACHE_LIMIT``, else 8.
    """

    def __init__(self, root: Path | None = None, *, limit: float | None = None) -> None:
        self.root = root or cache_home() / "features"
        configured = float(os.environ.get(LIMIT_VARIABLE) or LIMIT_GIB)
        self.limit = configured if limit is None else limit

    def store(self, fingerprint: str, engine: str, precision: str, slot: str = "") -> RowStore:
        """Rows of one tower state.

        Args:
            fingerprint: of weights and preprocessing, see `plait.engines.tower.fingerprint`.
            engine: what computes the rows.
            precision: in which it does.
            slot: names the augmentation, with its seed; empty for plain pictures and texts.
        """
        return RowStore(self.folder(fingerprint, engine, precision, slot))

    def folder(self, fingerprint: str, engine: str, precision: str, slot: str = "") -> Path:
        """Where `store` keeps its rows."""
        return self.root / digest("features-1", fingerprint, engine, precision, slot)

    def pass_over(self, fingerprint: str, engine: str, precision: str) -> None:
        """Remembers that an engine does not suit a tower, so that it is not tried again."""
        write_json(self.folder(fingerprint, engine, precision) / _PASSED_OVER, True)

    def is_passed_over(self, fingerprint: str, engine: str, precision: str) -> bool:
        """Whether `pass_over` was called."""
        return (self.folder(fingerprint, engine, precision) / _PASSED_OVER).is_file()

    def take(self, fingerprint: str, engine: str, precision: str) -> None:
        """Remembers that an engine was found faithful to a tower, so that it is not asked again."""
        write_json(self.folder(fingerprint, engine, precision) / _TAKEN, True)

    def is_taken(self, fingerprint: str, engine: str, precision: str) -> bool:
        """Whether `take` was called."""
        return (self.folder(fingerprint, engine, precision) / _TAKEN).is_file()

    def prune(self, keep: Path | None = None) -> list[Path]:
        """Removes least recently used folders beyond the limit; returns them."""
        folders = [path for path in self.root.glob("*/") if path != keep]
        sized = sorted((path.stat().st_mtime, _bytes(path), path) for path in folders)
        total = sum(size for _, size, _ in sized) + (_bytes(keep) if keep else 0)
        removed = []
        for _, size, path in sized:
            if total <= self.limit * 2**30:
                break
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
            total -= size
        return removed


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _let_go(part: np.ndarray) -> None:
    """Takes the pages of a mapped file out of this process's memory, until they are read again."""
    mapped = getattr(part, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        mapped.madvise(mmap.MADV_DONTNEED)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
