"""A `Sample`, and where the bytes of its pictures are.

Torch-free: the runtime of a bundle uses these too.
"""
# ruff: noqa: D102  the refs share the docstrings of MediaRef

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from plait.core.errors import DataError, tamed
from plait.core.errors import cut as short
from plait.core.files import MOST_FILE, read_regular
from plait.core.notebook import cut


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
        from plait.data.inline import from_base64

        try:
            return from_base64(data.decode("ascii", "replace"))
        except ValueError as error:
            raise DataError(f"the picture is no base64: {error}", path=self.name) from None


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing shown, with every text that tells of it.

    Attributes:
        id: stable across file formats: see `plait.data.readers.assemble`.
        where: the row it came from, e.g. ``captions.csv, row 17``.
        image: its picture.
        texts: every caption of the picture; all of them are true.
        languages: of each text (``en``, ``zh``), or () when unknown.
        group: samples of one group show the same thing: they share a split and are positives of
            one another. None: the sample is a group of its own.
        split: ``train``, ``validation`` or ``test`` where the source says so.
        media: further modalities by name (``audio``, ``video``, ``sensor``).
        labels: supervision beside texts (a class, a question with its answers).
        meta: the remaining columns, for reports and filters.
        derived: whether the id was made from the name of the picture.
    """

    id: str
    where: str
    image: MediaRef | None = None
    texts: tuple[str, ...] = ()
    languages: tuple[str | None, ...] = ()
    group: str | None = None
    split: str | None = None
    media: Mapping[str, MediaRef] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    derived: bool = False

    def __repr__(self) -> str:
        shown = "no picture" if self.image is None else self.image.name
        return (
            f"Sample({self.id!r}, {shown}, {len(self.texts)} texts: {cut(' | '.join(self.texts))})"
        )

    def _repr_html_(self) -> str:
        from plait.data.display import sample_html

        return sample_html(self)

    @property
    def group_key(self) -> str:
        """The group, or the id of a sample that is a group of its own."""
        return self.id if self.group is None else self.group


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that gave no sample, and why.

    Attributes:
        path: the file that states the row.
        row: line, row number (from 1) or key in that file.
        problem: what is wrong, in words that name the mend.
        kind: one word for counting, e.g. ``missing-file`` (see `plait.data.audit`).
        bare: the row of the picture alone, where only its text is missing.
    """

    path: str
    row: int | str | None
    problem: str
    kind: str
    bare: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "problem", tamed(self.problem))

    @property
    def where(self) -> str:
        """For messages, e.g. ``captions.csv, row 17``."""
        return self.path if self.row is None else f"{self.path}, row {short(str(self.row))}"

    def error(self) -> DataError:
        """The same as an exception."""
        return DataError(self.problem, path=self.path, row=self.row)
