"""Decoded, resized pictures on disk, so that they are decoded once for all epochs and runs.

Each writer appends to a segment of its own: a file of pixels, and a file of fixed-size records
that are written after the pixels they tell of. So writers need no lock, whatever stops one
leaves at most a tail that no record tells of, and the next run goes on where it ended. Readers
map the segments into memory.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from plait.core.errors import DataError, UserError
from plait.core.files import cache_home, write_json
from plait.core.media import MediaRef, TarRef
from plait.modalities.image.preprocess import ImagePreprocess

_KEY_BYTES = 16
_RECORD_BYTES = _KEY_BYTES + 4  # and the checksum of the pixels


def file_identity(ref: MediaRef) -> bytes:
    """16 bytes that change with the picture: path, size and time of a file (and the
    place within a tar), else its content.

    Raises:
        DataError: the file is gone.
    """
    file = ref.tar if isinstance(ref, TarRef) else ref.path
    if file is None:
        return hashlib.sha256(b"content\0" + ref.read()).digest()[:_KEY_BYTES]
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=ref.name) from error
    place = f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    if isinstance(ref, TarRef):
        place += f"\0{ref.offset}\0{ref.size}"
    place_bytes = place.encode("utf-8", "surrogateescape")
    return hashlib.sha256(b"file\0" + place_bytes).digest()[:_KEY_BYTES]


@dataclass
class _Segment:
    """One writer's pixels; ``slots`` counts those that have a record."""

    pixels: Path
    records: Path
    slots: int = 0
    mapped: np.ndarray | None = None
    checked: set[int] = field(default_factory=set)


class _Files:
    """The open files of a segment that is being written; closed with the last reference."""

    def __init__(self, pixels: Path, records: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self.pixels, self.records = os.open(pixels, flags, 0o666), os.open(records, flags, 0o666)
        self.close = weakref.finalize(self, _close, self.pixels, self.records)

    def append(self, pixels: memoryview, record: bytes) -> None:
        """Writes the pixels, then the record that tells of them."""
        for file, content in ((self.pixels, pixels), (self.records, memoryview(record))):
            while content:
                content = content[os.write(file, content) :]


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


class PixelCache:
    """A store of uint8 pixels (3, h, w) by picture, for one preprocessing.

    Safe for several threads and several processes at once. A record whose pixels do not match
    its checksum counts as absent.

    Args:
        preprocess: pictures of other sizes, crops or filters live in other folders.
        folder: where all caches live; default ``pixels`` in plait's cache.
    """

    def __init__(self, preprocess: ImagePreprocess, folder: str | Path | None = None) -> None:
        self.shape = (3, *preprocess.size_2d)
        self._bytes = int(np.prod(self.shape))
        self.folder = Path(folder or cache_home() / "pixels") / preprocess.pixels_fingerprint
        self._where: dict[bytes, tuple[_Segment, int]] = {}
        self._segments: dict[str, _Segment] = {}
        self._own: _Segment | None = None
        self._files: _Files | None = None
        self._lock = threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "preprocess.json").exists():  # for people who look in here
            write_json(self.folder / "preprocess.json", preprocess.to_json())
        self.refresh()

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, ref: MediaRef) -> bool:
        return file_identity(ref) in self._where

    def refresh(self) -> None:
        """Takes note of what other processes have added."""
        with self._lock:
            for path in sorted(self.folder.glob("*.records")):
                segment = self._segments.get(path.stem)
                if segment is None:
                    segment = _Segment(path.with_suffix(".pixels"), path)
                    self._segments[path.stem] = segment
                if segment is not self._own:
                    self._read_records(segment)

    def _read_records(self, segment: _Segment) -> None:
        try:
            with segment.records.open("rb") as file:
                file.seek(segment.slots * _RECORD_BYTES)
                content = file.read()
            kept = segment.pixels.stat().st_size // self._bytes
        except FileNotFoundError:  # cleared by another process
            return
        # A torn record at the end, or one without its pixels, tells of a writer that was stopped.
        added = min(len(content) // _RECORD_BYTES, kept - segment.slots)
        for index in range(max(0, added)):
            key = content[index * _RECORD_BYTES :][:_KEY_BYTES]
            self._where[key] = (segment, segment.slots + index)
        segment.slots += max(0, added)

    def get(self, ref: MediaRef) -> UInt8[np.ndarray, "3 h w"] | None:
        """The pixels of a picture, read-only, or None when they are not kept."""
        with self._lock:
            found = self._where.get(file_identity(ref))
            if found is None:
                return None
            segment, slot = found
            if segment.mapped is None or len(segment.mapped) <= slot:
                segment.mapped = self._map(segment)
                if segment.mapped is None:
                    return None
            pixels: np.ndarray = segment.mapped[slot]
            if slot in segment.checked:
                return pixels
        if zlib.crc32(pixels.data) != self._checksum(segment, slot):
            with self._lock:
                self._where.pop(file_identity(ref), None)
            return None
        segment.checked.add(slot)
        return pixels

    def _map(self, segment: _Segment) -> np.ndarray | None:
        try:
            count = segment.pixels.stat().st_size // self._bytes
            return np.memmap(segment.pixels, np.uint8, "r", shape=(count, *self.shape))
        except (FileNotFoundError, ValueError):  # cleared by another process
            return None

    def _checksum(self, segment: _Segment, slot: int) -> int:
        with segment.records.open("rb") as file:
            file.seek(slot * _RECORD_BYTES + _KEY_BYTES)
            return int.from_bytes(file.read(4), "little")

    def put(self, ref: MediaRef, pixels: UInt8[np.ndarray, "3 h w"]) -> None:
        """Keeps the pixels of a picture. A second time for the same picture does nothing."""
        if pixels.shape != self.shape or pixels.dtype != np.uint8:
            raise ValueError(f"expected uint8 {self.shape}, got {pixels.dtype} {pixels.shape}")
        key = file_identity(ref)
        content = np.ascontiguousarray(pixels)
        record = key + zlib.crc32(content.data).to_bytes(4, "little")
        with self._lock:
            if key in self._where:
                return
            if self._own is None or self._files is None:
                self._own, self._files = self._start_segment()
            self._append(content, record)
            self._where[key] = (self._own, self._own.slots)
            self._own.slots += 1

    def _append(self, content: np.ndarray, record: bytes) -> None:
        assert self._files is not None
        try:
            self._files.append(content.data.cast("B"), record)
        except OSError as error:  # a full disk, most likely; what comes after it would be shifted
            self._files.close()
            self._own, self._files = None, None
            raise UserError(
                f"{self.folder}: pixels cannot be kept: {error.strerror}; make room, or switch "
                "the pixel cache off"
            ) from error

    def _start_segment(self) -> tuple[_Segment, _Files]:
        name = f"{os.getpid():x}-{os.urandom(6).hex()}"
        segment = _Segment(self.folder / f"{name}.pixels", self.folder / f"{name}.records")
        self._segments[name] = segment
        return segment, _Files(segment.pixels, segment.records)

    def close(self) -> None:
        """Ends this writer's segment. The cache can be used further, and starts another then."""
        with self._lock:
            if self._files is not None:
                self._files.close()
            self._own, self._files = None, None

    def __enter__(self) -> PixelCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
