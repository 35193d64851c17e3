"""What readers yield: one `Row` per line, entry or member of a source, or a `BadRow`."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from plait.core.errors import shown
from plait.core.media import MediaRef
from plait.data.base import splits
from plait.data.base.sample import BadRow
from plait.data.readers.leave import Leave


class Bad(Exception):
    """Raised while one row is read; the reader turns it into a `BadRow`."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind, self.problem = kind, problem


@dataclass(slots=True)
class Row:
    """One row as a source states it; rows with the same ``key`` merge into one sample.

    Attributes:
        path, row: the file that states it, and where in that file.
        name: the stated name of the picture (or of the first other medium): ids come from it.
        origin: what tells rows of the same name apart: the shard.
        key: tells pictures apart: the file, shard member or content; None: merges with nobody.
        id: an id that the source states for plait (``sample_id`` or a mapped column), else None.
    """

    path: str
    row: int | str | None
    name: str = ""
    origin: str = ""
    key: Hashable | None = None
    id: str | None = None
    image: MediaRef | None = None
    texts: tuple[str, ...] = ()
    languages: tuple[str | None, ...] = ()
    split: str | None = None
    group: str | None = None
    media: Mapping[str, MediaRef] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """For messages, e.g. ``captions.csv, row 17``."""
        return self.path if self.row is None else f"{self.path}, row {self.row}"

    def bad(self, kind: str, problem: str) -> BadRow:
        """The row as one that gives no sample."""
        lacks_text = kind in ("empty-text", "no-class") and self.image is not None
        return BadRow(self.path, self.row, problem, kind, self if lacks_text else None)


Rows: TypeAlias = Iterator[Row | BadRow]


@dataclass(slots=True)
class Found:
    """What a path holds, as `plait.data.readers.detect` sees it.

    Attributes:
        format: a key of `plait.data.readers.detect.READERS`.
        root: the folder or file the user named.
        files: the files that state the rows.
        why: what was seen, in a sentence.
        columns: the user's column mapping, role to column.
        splits: the split each file states, by file.
        streaming: rows are taken one by one, once: hold nothing, store nothing.
        leave: where the files that rows name may lie.
        sheet: of a workbook, which sheet the user named.
        notes: readers add what a user should know.
        reasons: why files were not read that look as if they held rows, by name below ``root``.
        read: readers add files that they read besides ``files`` and what the samples name, so that
            no note calls them unread.
    """

    format: str
    root: Path
    files: tuple[Path, ...]
    why: str
    columns: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[Path, str | None] = field(default_factory=dict)
    streaming: bool = False
    leave: Leave = field(default_factory=Leave)
    sheet: str | None = None
    notes: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    read: set[Path] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """The folder that relative names start from."""
        return self.root if self.root.is_dir() else self.root.parent


def clean_texts(values: list[Any]) -> tuple[str, ...]:
    """Texts without the white space around them. Raises `Bad` for an empty one, or no string."""
    texts = []
    for value in values:
        if value is None or value != value:  # NaN, as tables store a missing cell
            raise Bad("empty-text", "the text is empty: fill it in or remove the row")
        if isinstance(value, Mapping):  # {"raw": ...} of Hugging Face's COCO tables
            known = [name for name in ("raw", "text", "caption", "value") if name in value]
            value = value[known[0]] if known else value
        if not isinstance(value, str):
            kind = type(value).__name__
            raise Bad("wrong-type", f"the text must be a string or a list of strings, not {kind}")
        text = value.strip()
        if not text or not _is_seen(text):
            raise Bad("empty-text", "the text is empty: fill it in or remove the row")
        try:
            text.encode()
        except UnicodeEncodeError:  # half a character, as JSON can spell it: "\\ud83d"
            raise Bad("bad-encoding", "the text holds a lone surrogate: write it again") from None
        texts.append(text)
    if not texts:
        raise Bad("empty-text", "there is no text: fill it in or remove the row")
    return tuple(texts)


_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
)  # blank, though letters or symbols to Unicode
_UNSEEN_KINDS = frozenset(["Cc", "Cf", "Zs", "Zl", "Zp"])


def _is_seen(text: str) -> bool:
    """Whether a person would see anything of a text.

    Zero-width signs, marks of direction and variation selectors alone show nothing.
    """
    return any(
        sign not in _UNSEEN
        and not "\ufe00" <= sign <= "\ufe0f"
        and not "\U000e0100" <= sign <= "\U000e01ef"
        and unicodedata.category(sign) not in _UNSEEN_KINDS
        for sign in text
    )


def clean_split(value: Any) -> str | None:
    """A stated split in our words; None for an empty cell. Raises `Bad` for an unknown word."""
    if value is None or value != value or value == "":
        return None
    split = splits.canonical(value) if isinstance(value, str) else None
    if split is None:
        raise Bad("bad-split", f"unknown split {shown(value)}: write train, validation or test")
    return split
