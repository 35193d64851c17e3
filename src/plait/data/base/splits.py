"""Which split a sample belongs to: what the source states, else a hash of its group.

The hash depends on the group's name alone, so that adding rows moves nobody, and the same
photographs in another file format fall into the same splits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from plait.core.errors import DataError, did_you_mean
from plait.data.base.sample import Sample

SPLITS = ("train", "validation", "test")

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # words of camelCase too
_ALIASES = {
    "train": "train",
    "training": "train",
    "restval": "train",  # Karpathy's remainder of COCO's validation images joins train
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def split_of(key: str) -> str:
    """``train`` for 80%, ``validation`` for 10%, ``test`` for 10% of all keys, by SHA-256."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    position = number / 2**64
    return "train" if position < 0.8 else "validation" if position < 0.9 else "test"


def canonical(name: str) -> str | None:
    """``val``, ``dev``, ``restval`` and the like in our words; None for any other word."""
    return _ALIASES.get(name.strip().lower())


def checked(name: str) -> str:
    """The canonical name of a split, or ``all``. Raises `DataError` for any other word."""
    if name == "all":
        return name
    split = canonical(name)
    if split is None:
        known = [*SPLITS, "all"]
        raise DataError(f"unknown split {name!r}{did_you_mean(name, known)} ({', '.join(known)})")
    return split


def split_in_name(name: str) -> str | None:
    """The split a file or folder name states: ``captions_val2017.json``, ``x.devImages.txt``."""
    words = {canonical(word) for word in _WORD.findall(name)} - {None}
    return words.pop() if len(words) == 1 else None


def splits_of_names(names: Iterable[str]) -> dict[str, str | None]:
    """The split each name states, provided that the names tell at least two splits apart.

    A lone ``test.csv`` is no test split: it is somebody's first try.
    """
    found = {name: split_in_name(name) for name in names}
    if len(set(found.values()) - {None}) < 2:
        return dict.fromkeys(found)
    return found


def in_splits(names: list[str]) -> list[tuple[str, str | None, str]]:
    """(name, split its first folder states, name inside that folder) of each path."""
    tops = [name.split("/", 1)[0] for name in names if "/" in name]
    stated = splits_of_names(top for top in tops if canonical(top))
    result = []
    for name in names:
        top, _, rest = name.partition("/")
        wrapped = rest and canonical(top) is not None
        result.append((name, stated.get(top), rest if wrapped else name))
    return result


def assign(samples: Sequence[Sample]) -> list[str]:
    """The split of every sample.

    Nothing stated anywhere: `split_of` the group. Otherwise what is stated holds; a sample without
    a statement joins its group, else train. A split that the source states nowhere is filled from
    train by `split_of`, so that a source of train and test alone has a validation split too.
    """
    stated = {sample.split for sample in samples} - {None}
    if not stated:
        return [split_of(sample.group_key) for sample in samples]
    of_group: dict[str, str] = {}
    for sample in samples:
        if sample.split is not None:
            of_group.setdefault(sample.group_key, sample.split)

    def one(sample: Sample) -> str:
        split = sample.split or of_group.get(sample.group_key, "train")
        hashed = split_of(sample.group_key)
        return hashed if split == "train" and hashed not in stated else split

    return [one(sample) for sample in samples]
