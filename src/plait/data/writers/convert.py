"""Writing a data set in another format, so that opening it again gives the same samples.

Samples, texts, ids, groups and splits come back the same. What a format cannot hold (languages in
Flickr8k, audio in COCO ...) is counted in `Converted.lost`, never dropped unseen.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait.core import progress
from plait.core.errors import DataError, did_you_mean
from plait.core.files import digest, new_folder
from plait.core.media import MediaRef
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.open.open import OnBadRow, Roots, open_dataset
from plait.data.readers.assemble import short_ids
from plait.data.readers.files import MEDIA_SUFFIXES, suffix
from plait.modalities.image.structure import kind_of

_ENDINGS = {"WEBP": "webp", "AVIF": "avif", "HEIC": "heic", "DICOM": "dcm"}
_UNSAFE = set('<>:"|?*\\~')
_SIGNATURES = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


@dataclass(slots=True)
class Item:
    """A sample as writers take it.

    Attributes:
        name: of its picture's file, without folder, with ending; empty without a picture.
        media: the file name of each further medium.
        id: the sample's id where its file name does not give it, else None.
        split: the split it is in when the source states splits, else None.
        assigned: the split it is in.
        number: counted from 0.
    """

    sample: Sample
    name: str
    media: dict[str, str]
    id: str | None
    split: str | None
    assigned: str
    number: int


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        path: the new folder.
        format: as asked for.
        samples, texts: how many.
        lost: what the format cannot hold, and of how many samples.
    """

    path: Path
    format: str
    samples: int
    texts: int
    lost: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "format": self.format,
            "samples": self.samples,
            "texts": self.texts,
            "lost": dict(self.lost),
        }


def convert(
    source: str | Path | PairDataset,
    target: str | Path,
    to: str = "imagefolder",
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_row: OnBadRow = "fail",
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
) -> Converted:
    """Writes ``source`` into the new folder ``target``; the pictures' bytes are copied as they are.

    Args:
        source: what `plait.data.open_dataset` takes, or a data set that is open.
        target: a folder that is not there yet, or is empty. It appears at once, when complete.
        to: a key of `plait.data.writers.writers.WRITERS`: ``imagefolder``, ``csv``, ``tsv``, ``jsonl``,
            ``parquet`` (pictures inside), ``webdataset``, ``coco``, ``karpathy``, ``flickr8k``,
            ``llava``.
        columns: as in `plait.data.open_dataset`.
        on_bad_row: likewise.
        root: likewise.
        allow_outside: likewise.
        encoding: likewise.

    Raises:
        DataError: the target exists, the format is unknown, the source cannot be read, or a
            sample lacks what the format is made of.
    """
    from plait.data.writers.writers import WRITERS

    if to not in WRITERS:
        hint = did_you_mean(to, WRITERS)
        raise DataError(f"unknown format {to!r}{hint}; formats: {', '.join(WRITERS)}")
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError("exists already: name a new folder, nothing is overwritten", path=target)
    if isinstance(source, PairDataset):
        dataset = source
    else:
        dataset = open_dataset(
            source,
            columns=columns,
            on_bad_row=on_bad_row,
            root=root,
            allow_outside=allow_outside,
            encoding=encoding,
        )
    items = list(_items(dataset, needs_picture=to != "llava"))
    lost: Counter[str] = Counter()
    with new_folder(target) as partial:
        WRITERS[to](progress.track(items, f"Writing {to}"), partial, lost)
    kept = {name: count for name, count in lost.items() if count}
    return Converted(target, to, len(dataset), dataset.texts, kept)


def _items(dataset: PairDataset, *, needs_picture: bool) -> Iterator[Item]:
    stated = any(sample.split for sample in dataset)
    names: list[str] = []
    taken: set[str] = set()
    for sample in dataset:
        if not sample.texts:
            raise DataError(f"sample {sample.id!r} ({sample.where}) has no text to write")
        if sample.image is None and not sample.media and needs_picture:
            raise DataError(
                f"sample {sample.id!r} ({sample.where}) has no picture: convert to llava, which "
                "holds texts alone too"
            )
        first = sample.image or next(iter(sample.media.values()), None)
        names.append("" if first is None else _free(safe_name(sample.id, first), taken))
    # All ids or none: a reader derives them from the names of those rows that state none, and
    # what is the shortest name that tells rows apart depends on which rows these are.
    derived = short_ids(names)
    spoken = any(id != sample.id or not name for id, sample, name in zip(derived, dataset, names))
    for number, (sample, assigned) in enumerate(zip(dataset, dataset.splits, strict=True)):
        name = names[number]
        media = {role: safe_name(sample.id, ref) for role, ref in sample.media.items()}
        yield Item(
            sample=sample,
            name=name if sample.image is not None else "",
            media=media,
            id=sample.id if spoken else None,
            split=assigned if stated else None,
            assigned=assigned,
            number=number,
        )


def _free(name: str, taken: set[str]) -> str:
    """``name``, or the next one with a number that no earlier sample has (case aside)."""
    free, count = name, 1
    while free.casefold() in taken:
        count += 1
        start, dot, ending = name.rpartition(".")
        free = f"{start}-{count}{dot}{ending}"
    taken.add(free.casefold())
    return free


def safe_name(id: str, ref: MediaRef) -> str:
    """A file name for a sample that every file system takes: its id where that is possible."""
    ending = suffix(ref.name)
    if ending not in MEDIA_SUFFIXES:
        ending = _signature(ref.read()[:1024])
    start = id.removesuffix(f".{ending}")
    parts = []
    for part in unicodedata.normalize("NFC", start).split("/"):
        safe = "".join("_" if c in _UNSAFE or ord(c) < 32 or ord(c) == 127 else c for c in part)
        safe = safe.rstrip(" .").lstrip(" ")
        if not safe or safe.startswith("."):
            safe = f"_{safe.lstrip('.')}"
        if len(safe.encode()) > 150:
            safe = safe.encode()[:120].decode(errors="ignore") + digest(part)
        parts.append(safe)
    return "/".join(parts[-8:]) + f".{ending}"


def _signature(start: bytes) -> str:
    kind = kind_of(start)
    if kind in _ENDINGS:
        return _ENDINGS[kind]
    return next((ending for sign, ending in _SIGNATURES if start.startswith(sign)), "bin")
