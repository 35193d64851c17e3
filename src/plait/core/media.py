"""Where the bytes of a picture, a recording or a series are.

Torch-free: the runtime of a bundle uses these too.
"""
# ruff: noqa: D102  the refs share the docstrings of MediaRef

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from plait.core.errors import DataError
from plait.core.files import MOST_FILE, read_regular


@runtime_checkable
class MediaRef(Protocol):
    """Where the bytes of one picture, recording or series are.

    Attributes:
        name: for messages, e.g. ``images/1.jpg`` or ``shard-0.tar!1.jpg``.
        path: a file of its own on disk, or None (inside a shard, a table, memory).
    """

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path | None: ...

    if TYPE_CHECKING:  # isinstance asks for every member, and this one touches the disk

        @property
        def size(self) -> int:
            """Bytes. Raises `DataError` when the file is gone."""

    def read(self) -> bytes:
        """The encoded bytes. Raises `DataError` when they are missing or unreadable."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file of its own.

    Attributes:
        path: where it is.
        name: the path as the data set states it.
        stated: how it states it where the file was found by another spelling, which is ``name``.
    """

    path: Path
    name: str = ""
    stated: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", str(self.path))

    @property
    def size(self) -> int:
        try:
            return os.stat(self.path).st_size  # noqa: PTH116  half the time of Path.stat
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", path=self.path) from error

    def read(self) -> bytes:
        return read_regular(self.path)


@dataclass(frozen=True, slots=True)
class TarRef:
    """``size`` bytes from ``offset`` of an uncompressed tar: the member is never unpacked."""

    tar: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.tar.name}!{self.member}"

    @property
    def path(self) -> Path | None:
        return None

    def read(self) -> bytes:
        if self.size > MOST_FILE:
            raise DataError(
                f"{self.member} has {self.size:,} bytes, more than the {MOST_FILE:,} that are read",
                path=self.tar,
            )
        try:
            with self.tar.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", path=self.tar) from error
        if len(data) != self.size:
            raise DataError(
                f"ends inside {self.member}: {self.size} bytes expected, {len(data)} there",
                path=self.tar,
            )
        return data


@dataclass(frozen=True, slots=True)
class BytesRef:
    """Bytes in memory."""

    data: bytes = field(repr=False)
    name: str

    @property
    def path(self) -> Path | None:
        return None

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class ArrowRef:
    """Row ``index`` of a binary Arrow column, which may be memory-mapped (Parquet, HF data).

    With ``base64`` the column holds the bytes as such text.
    """

    column: Any = field(repr=False)
    index: int
    name: str
    base64: bool = False

    @property
    def path(self) -> Path | None:
        return None

    @property
    def size(self) -> int:
        return int(self.column[self.index].as_buffer().size)

    def read(self) -> bytes:
        data: bytes = self.column[self.index].as_buffer().to_pybytes()
        if not self.base64:
            return data
        from plait.core.base64 import from_base64

        try:
            return from_base64(data.decode("ascii", "replace"))
        except ValueError as error:
            raise DataError(f"the picture is no base64: {error}", path=self.name) from None
