"""What the pictures of an index were when they were embedded, and what of a source differs from it.

``files.jsonl`` in the index's folder grows by a line for each row that went in (``+``: id, path, size,
time and SHA-256 of the picture's bytes, a digest of its texts and columns, its split) or out (``-``),
and by one (``=``) that names the state of the table which the lines before it describe. While that is
the table's present state, the file tells what the index holds without the database being opened. What
a killed process left behind the last whole line does not count. An index without the file (of an older
version) is embedded anew once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plait.core.errors import DataError
from plait.core.files import RealPaths, digest, parse_json, read_regular, replacing
from plait.data.base.sample import Sample
from plait.retrieval.index.identity import Known

NAME = "files.jsonl"
_MOST_BYTES = 8 << 30
_SPARE = 1000  # lines that the file may have beyond twice those that it needs


@dataclass(frozen=True, slots=True)
class FileState:
    """Of one picture when its row was written.

    Attributes:
        path: real; None where it has no file of its own.
        size: bytes.
        time: of its last change, nanoseconds; 0 where it has no file of its own.
        sha: SHA-256 of its bytes.
        told: digest of its texts and columns.
        split: that its row has.
    """

    path: str | None
    size: int
    time: int
    sha: str
    told: str
    split: str


States = dict[str, FileState]


def table_state(folder: Path) -> str:
    """What changes with every commit to the table of an index; nothing of it is opened."""
    versions = folder / "rows.lance" / "_versions"
    return digest("\n".join(sorted(os.listdir(versions)))) if versions.is_dir() else ""  # noqa: PTH208


class Journal:
    """The states of an index's pictures, by id.

    Args:
        folder: of the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        self._lines = 0
        self._damaged = False

    def read(self) -> tuple[States, bool]:
        """The states, and whether they describe the table as it is now.

        No states where there is no file, or an unreadable one: then all is embedded anew.
        """
        states: States = {}
        table = None
        try:
            data = read_regular(self.path, most_bytes=_MOST_BYTES)
            whole = data[: data.rfind(b"\n")].decode().split("\n")
            lines = parse_json(f"[{','.join(whole)}]")
            for sign, *values in lines:
                if sign == "+":
                    states[_text(values[0])] = _checked(FileState(*values[1:]))
                elif sign == "-":
                    states.pop(_text(values[0]), None)
                table = values[0] if sign == "=" else None
        except (DataError, ValueError, TypeError, IndexError):
            self._damaged = True
            return {}, False
        self._lines = len(lines)
        return states, table is not None and table == table_state(self.folder)

    def in_step(self) -> bool:
        """Whether the states describe the table as it is now, by the last line alone."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
                last = file.read().split(b"\n")[-2:]
        except OSError:
            return False
        return last == [_line("=", table_state(self.folder)).encode()[:-1], b""]

    def write(self, put: Mapping[str, FileState], drop: Iterable[str] = (), *, whole: bool) -> None:
        """Adds what rows went in and out.

        Args:
            put: states of rows that are in the table now.
            drop: ids that are out of it.
            whole: the file then describes all of the table.
        """
        lines = [_put(id, one) for id, one in put.items()]
        lines += [_line("-", id) for id in drop]
        if whole:
            lines.append(_line("=", table_state(self.folder)))
        with self.path.open("wb" if self._damaged else "ab") as file:
            self._damaged = False
            if file.tell():
                self._end_line(file.tell())
            file.write("".join(lines).encode())
        self._lines += len(lines)

    def _end_line(self, size: int) -> None:
        """Cuts off what a killed process left of a line."""
        with self.path.open("r+b") as file:
            file.seek(max(0, size - (1 << 20)))
            tail = file.read()
            if not tail.endswith(b"\n"):
                file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)

    def compact(self, states: Mapping[str, FileState]) -> None:
        """Writes the file anew where most of it no longer counts, after `write` of the whole."""
        if self._lines <= 2 * len(states) + _SPARE:
            return
        with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(_put(id, one) for id, one in states.items())
            file.write(_line("=", table_state(self.folder)))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _checked(one: FileState) -> FileState:
    """A state as it was read: whoever made the index may have written the file by hand."""
    if type(one.size) is not int or type(one.time) is not int:
        raise TypeError(f"{one} is no state of a file")
    for value in (one.path or "", one.sha, one.told, one.split):
        _text(value)
    return one


def _put(id: str, one: FileState) -> str:
    return _line("+", id, one.path, one.size, one.time, one.sha, one.told, one.split)


def _line(*values: object) -> str:
    return f"{json.dumps(values)}\n"  # ASCII: no sign in it ends a line


def state_of(
    sample: Sample, split: str, real: RealPaths, before: FileState | None = None
) -> FileState:
    """The present state; bytes are read where path, size or time differ from ``before``.

    Raises:
        DataError: the picture cannot be read.
    """
    ref = sample.image
    assert ref is not None
    told = digest(repr((sample.texts, sample.languages, sample.group, *_columns(sample))))
    if ref.path is None:
        return FileState(None, ref.size, 0, hashlib.sha256(ref.read()).hexdigest(), told, split)
    try:
        status = os.stat(ref.path)  # noqa: PTH116  half the time of Path.stat
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=ref.path) from error
    path, size, time = real(ref.path), status.st_size, status.st_mtime_ns
    same = before is not None and (before.path, before.size, before.time) == (path, size, time)
    sha = before.sha if before is not None and same else hashlib.sha256(ref.read()).hexdigest()
    return FileState(path, size, time, sha, told, split)


def _columns(sample: Sample) -> tuple[object, object]:
    return sorted(sample.labels.items()), sorted(sample.meta.items(), key=lambda one: one[0])


def states_of(samples: Iterable[Sample], splits: Iterable[str], real: RealPaths) -> States:
    """Of all that have a picture which can be read; what is wrong with another, embedding tells."""
    found = {}
    for one, split in zip(samples, splits, strict=True):
        if one.image is not None:
            try:
                found[one.id] = state_of(one, split, real)
            except DataError:
                continue
    return found


@dataclass(slots=True)
class Difference:
    """What must be done so that an index holds these samples and no others.

    Attributes:
        states: the present ones.
        added, changed: places of samples to be embedded.
        retold: places of samples whose picture is as it was, but not their texts or columns.
        resplit: places of samples of which nothing but the split is another.
        relocated: places of samples with the id that they had, and the same picture elsewhere.
        moved: place of a sample, and the other id that its picture has in the index.
        unchanged: how many, those of `resplit` too.
        gone: ids that no sample has.
    """

    states: States = field(default_factory=dict)
    added: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    retold: list[int] = field(default_factory=list)
    resplit: list[int] = field(default_factory=list)
    relocated: list[int] = field(default_factory=list)
    moved: dict[int, str] = field(default_factory=dict)
    unchanged: int = 0
    gone: list[str] = field(default_factory=list)


def difference(
    samples: Sequence[Sample],
    splits: Sequence[str],
    known: Known,
    states: Mapping[str, FileState],
    real: RealPaths,
) -> Difference:
    """Between a source and an index.

    Args:
        samples: with the ids of their rows; those without a picture are passed over.
        splits: of each.
        known: ids that the index has.
        states: that it recorded.
        real: of paths.
    """
    found = Difference()
    here = {sample.id for sample in samples if sample.image is not None}
    found.gone = [id for id in known if id not in here]
    by_sha: dict[str, list[str]] = {}
    for id in found.gone:
        if id in states:
            by_sha.setdefault(states[id].sha, []).append(id)
    for place, sample in enumerate(samples):
        if sample.image is None:
            continue
        before = states.get(sample.id) if sample.id in known else None
        try:
            now = state_of(sample, splits[place], real, before)
        except DataError:  # embedding it says what is wrong, or skips it
            (found.changed if sample.id in known else found.added).append(place)
            continue
        found.states[sample.id] = now
        if before is not None and now.sha == before.sha:
            _same_picture(found, place, before, now)
        elif sample.id in known:
            found.changed.append(place)
        elif by_sha.get(now.sha):
            found.moved[place] = by_sha[now.sha].pop()
        else:
            found.added.append(place)
    return found


def _same_picture(found: Difference, place: int, before: FileState, now: FileState) -> None:
    if now.path != before.path:
        found.relocated.append(place)
    elif now.told != before.told:
        found.retold.append(place)
    else:
        found.unchanged += 1
        if now.split != before.split:
            found.resplit.append(place)
