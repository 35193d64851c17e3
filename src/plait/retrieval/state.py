"""What the pictures of an index were when they were embedded, and what of a source differs from it.

``files.json`` in the index's folder has, for each id, size, time and SHA-256 of the picture's bytes,
and a digest of its texts and columns. An index without it (of an older version) is embedded anew once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait.core.errors import DataError
from plait.core.files import digest, read_json, write_json
from plait.data.sample import Sample

NAME = "files.json"


@dataclass(frozen=True, slots=True)
class FileState:
    """Of one picture: bytes, nanoseconds (0 where it has no file of its own), SHA-256; its row's digest."""

    size: int
    time: int
    sha: str
    told: str


States = dict[str, FileState]


def read_states(folder: Path) -> States:
    """By id; empty where there are none, or they cannot be read: then all is embedded anew."""
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        stored = read_json(path, most_bytes=1 << 30)
        return {id: FileState(*values) for id, values in stored.items()}
    except (DataError, TypeError, AttributeError):
        return {}


def write_states(folder: Path, states: Mapping[str, FileState]) -> None:
    """Replaces those of the index, in one step."""
    write_json(
        folder / NAME,
        {id: [one.size, one.time, one.sha, one.told] for id, one in states.items()},
    )


def state_of(sample: Sample, split: str, before: FileState | None = None) -> FileState:
    """The present state; bytes are read where size or time differ from ``before``.

    Raises:
        DataError: the picture cannot be read.
    """
    ref = sample.image
    assert ref is not None
    told = digest(repr((sample.texts, sample.languages, split, sample.group)), _columns(sample))
    time = 0
    if ref.path is not None:
        try:
            time = os.stat(ref.path).st_mtime_ns  # noqa: PTH116  half the time of Path.stat
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", path=ref.path) from error
        if before is not None and (ref.size, time) == (before.size, before.time):
            return FileState(before.size, time, before.sha, told)
    return FileState(ref.size, time, hashlib.sha256(ref.read()).hexdigest(), told)


def _columns(sample: Sample) -> str:
    return repr(
        (sorted(sample.labels.items()), sorted(sample.meta.items(), key=lambda one: one[0]))
    )


def states_of(samples: Iterable[Sample], splits: Iterable[str]) -> States:
    """Of all that have a picture."""
    pairs = zip(samples, splits, strict=True)
    return {one.id: state_of(one, split) for one, split in pairs if one.image is not None}


@dataclass(slots=True)
class Difference:
    """What must be done so that an index holds these samples and no others.

    Attributes:
        states: the present ones.
        added, changed: places of samples to be embedded.
        retold: places of samples whose picture is as it was, but not their texts or columns.
        moved: place of a sample, and the id that its picture has in the index.
        unchanged: how many.
        gone: ids that no sample has.
    """

    states: States = field(default_factory=dict)
    added: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    retold: list[int] = field(default_factory=list)
    moved: dict[int, str] = field(default_factory=dict)
    unchanged: int = 0
    gone: list[str] = field(default_factory=list)


def difference(
    samples: Sequence[Sample], splits: Sequence[str], known: Mapping[str, Any], states: States
) -> Difference:
    """Between a source and an index.

    Args:
        samples: with the ids of their rows; those without a picture are passed over.
        splits: of each.
        known: ids that the index has.
        states: that it recorded.
    """
    found = Difference()
    here = {sample.id for sample in samples if sample.image is not None}
    found.gone = [id for id in known if id not in here]
    by_sha = {states[id].sha: id for id in found.gone if id in states}
    for place, sample in enumerate(samples):
        if sample.image is None:
            continue
        before = states.get(sample.id) if sample.id in known else None
        try:
            now = state_of(sample, splits[place], before)
        except DataError:  # embedding it says what is wrong, or skips it
            (found.changed if sample.id in known else found.added).append(place)
            continue
        found.states[sample.id] = now
        if before is not None and now.sha == before.sha:
            if now.told == before.told:
                found.unchanged += 1
            else:
                found.retold.append(place)
        elif sample.id in known:
            found.changed.append(place)
        elif now.sha in by_sha:
            found.moved[place] = by_sha.pop(now.sha)
        else:
            found.added.append(place)
    return found
