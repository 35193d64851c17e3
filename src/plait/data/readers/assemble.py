"""Rows to samples: rows of one picture merge, and every sample gets its id.

**The id of a sample is the stem of its picture's file name**: ``Images/1000.jpg`` is ``1000`` in
every format. Where several pictures of a set share a stem, each takes the shortest tail of its
path that no other has: ``cats/1.jpg`` and ``dogs/1.jpg`` are ``cats/1`` and ``dogs/1``, wherever
the data set starts its paths. Pictures that differ in the ending alone keep it (``1.jpg``,
``1.png``); pictures with the very same name add the shard they are in, or (in tables that embed
bytes) eight digits of their content. A picture without any name has the first sixteen digits of its SHA-256.

Numbers that a format counts its entries by (COCO's ``id``, Karpathy's ``imgid``, an ``id`` column)
are not ids here, because the same photographs would have others in another format; they are kept
in ``meta``. A column is the id when the mapping says so (``columns={"id": ...}``), or when it is
called ``sample_id``, which `plait.data.writers.convert` writes where a name does not give the id.

Names are compared after Unicode normalisation (NFC): macOS stores accents differently.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from plait.core.errors import DataError, cut_path, shown
from plait.data.base.sample import BadRow, Sample
from plait.data.readers.files import stem
from plait.data.readers.rows import Row, Rows

MOST_BAD = 1_000_000
"""Rows that may be left out of one source."""


@dataclass(slots=True)
class _Growing:
    """A sample while its rows come in."""

    first: Row
    rows: list[tuple[str, int | str | None, int]]  # file, row, number of texts
    texts: list[str]
    languages: list[str | None]
    labels: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


def assemble(rows: Rows, *, fail: bool) -> tuple[list[Sample], list[BadRow]]:
    """Samples in the order of their first rows, and the rows that gave none.

    Raises:
        DataError: the first bad row, when ``fail``.
    """
    traced = assemble_traced(rows, fail=fail)
    return traced.samples, traced.bad


Place: TypeAlias = tuple[str, int | str | None]


@dataclass(frozen=True, slots=True)
class Traced:
    """Samples with what merging loses.

    Attributes:
        places: of each sample, for each text the file and row that states it; a sample without
            texts has the place of its first row.
        conflicts: of each sample, the labels that its rows state differently.
    """

    samples: list[Sample]
    bad: list[BadRow]
    places: list[list[Place]]
    conflicts: list[list[str]]


def assemble_traced(rows: Rows, *, fail: bool = False) -> Traced:
    """`assemble`, with the places of texts and the labels in conflict."""
    growing: dict[Hashable, _Growing] = {}
    bad: list[BadRow] = []
    for row in rows:
        result = row if isinstance(row, BadRow) else _add(growing, row)
        if result is not None:
            if fail:
                raise result.error()
            bad.append(result)
            if len(bad) > MOST_BAD:
                raise DataError(f"more than {MOST_BAD:,} bad rows; the first: {bad[0].error()}")
    merged = list(growing.values())
    ids = make_ids([one.first for one in merged])
    samples = [_finish(one, id) for one, id in zip(merged, ids, strict=True)]
    places = [
        [(path, row) for path, row, n in one.rows for _ in range(max(n, 1))] for one in merged
    ]
    return Traced(samples, bad, places, [one.conflicts for one in merged])


def _add(growing: dict[Hashable, _Growing], row: Row) -> BadRow | None:
    key = ("id", row.id) if row.id is not None else row.key
    if key is None:
        key = ("row", len(growing))
    one = growing.get(key)
    if one is None:
        languages = list(row.languages) or [None] * len(row.texts)
        place = (row.path, row.row, len(row.texts))
        growing[key] = _Growing(
            row, [place], list(row.texts), languages, dict(row.labels), dict(row.meta)
        )
        return None
    first = one.first
    if row.key != first.key:
        return row.bad(
            "id-clash",
            f"id {shown(row.id)} already stands for {cut_path(first.name)} ({first.where})",
        )
    if row.split != first.split:
        stated = [part.split or "no split" for part in (row, first)]
        return row.bad(
            "leakage",
            f"{cut_path(row.name)} is in {stated[0]} here and in {stated[1]} at {first.where}: "
            "keep one of the two rows",
        )
    if row.group != first.group:
        return row.bad(
            "group-clash", f"group {shown(row.group)} here, {shown(first.group)} at {first.where}"
        )
    one.rows.append((row.path, row.row, len(row.texts)))
    one.texts += row.texts
    one.languages += list(row.languages) or [None] * len(row.texts)
    one.conflicts += _merge(one.labels, row.labels)
    for name, value in row.meta.items():
        one.meta.setdefault(name, value)
    return None


def _merge(labels: dict[str, Any], more: Mapping[str, Any]) -> list[str]:
    """Adds labels; one that differs between the rows of a picture becomes a list of them.

    Returns the names of those that differ and are no lists from the start.
    """
    conflicts = []
    for name, value in more.items():
        if name not in labels:
            labels[name] = value
        elif labels[name] != value:
            known = labels[name] if isinstance(labels[name], list) else [labels[name]]
            new = value if isinstance(value, list) else [value]
            if not isinstance(value, list):
                conflicts.append(name)
            labels[name] = [*known, *(item for item in new if item not in known)]
    return conflicts


def _finish(one: _Growing, id: str) -> Sample:
    row = one.first
    known = any(language is not None for language in one.languages)
    return Sample(
        id=id,
        where=row.where,
        image=row.image,
        texts=tuple(one.texts),
        languages=tuple(one.languages) if known else (),
        group=row.group,
        split=row.split,
        media=row.media,
        labels=one.labels,
        meta=one.meta,
        derived=row.id is None,
    )


def make_ids(rows: Sequence[Row]) -> list[str]:
    """The id of each row's sample, all different."""
    derived = iter(short_ids([row.name for row in rows if row.id is None]))
    ids = [next(derived) if row.id is None else row.id for row in rows]
    taken: dict[str, list[int]] = defaultdict(list)
    for number, id in enumerate(ids):
        taken[id].append(number)
    for id, numbers in taken.items():
        if len(numbers) > 1 or not id:
            for number in numbers:
                row = rows[number]
                if row.id is not None:
                    continue
                if row.origin and id:
                    ids[number] = f"{row.origin}/{id}"
                else:
                    content = content_digest(row)
                    ids[number] = f"{id}~{content[:8]}" if id else content[:16]
    return _unique(ids)


def _unique(ids: list[str]) -> list[str]:
    """Numbers what is still alike: rows of the same content without a name."""
    seen: dict[str, int] = defaultdict(int)
    result = []
    for id in ids:
        seen[id] += 1
        result.append(id if seen[id] == 1 else f"{id}~{seen[id]}")
    return result


def content_digest(row: Row) -> str:
    """SHA-256 of the picture's bytes, or of the texts where there is no picture."""
    data = repr(row.texts).encode() if row.image is None else row.image.read()
    return hashlib.sha256(data).hexdigest()


def short_ids(names: Sequence[str]) -> list[str]:
    """For each path the shortest tail, without ending, that no other path has.

    Equal paths get equal ids; ``""`` stays ``""``.
    """
    plain = [unicodedata.normalize("NFC", name.replace("\\", "/")) for name in names]
    parts = [[part for part in stem(name).split("/") if part not in ("", ".")] for name in plain]
    shared = _shared_folders(parts)  # so that it does not matter where the source starts its paths
    parts = [part[shared:] for part in parts]
    ids = [""] * len(names)
    pending = list(range(len(names)))
    depth = 1
    while pending:
        groups: dict[str, list[int]] = defaultdict(list)
        for number in pending:
            groups["/".join(parts[number][-depth:])].append(number)
        pending = []
        for tail, members in groups.items():
            longer = any(len(parts[number]) > depth for number in members)
            if len(members) == 1 or not tail:
                for number in members:
                    ids[number] = tail
            elif longer:
                pending += members
            else:  # the same path but for the ending, or the very same
                endings = [plain[number].removeprefix(stem(plain[number])) for number in members]
                different = len(set(endings)) > 1
                for number, ending in zip(members, endings, strict=True):
                    ids[number] = tail + ending if different else tail
        depth += 1
    return ids


def _shared_folders(parts: Sequence[list[str]]) -> int:
    folders = [part[:-1] for part in parts if part]
    if not folders:
        return 0
    first, last = min(folders), max(folders)
    count = 0
    while count < min(len(first), len(last)) and first[count] == last[count]:
        count += 1
    return count
