"""COCO 2014 captions in the splits of Karpathy and Fei-Fei (2015).

Captions come from the hub, pictures from COCO's own server, once, into the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plait.core.errors import DataError
from plait.core.files import cache_home
from plait.core.media import FileRef
from plait.data.base import splits
from plait.data.base.dataset import PairDataset
from plait.data.readers.assemble import assemble
from plait.data.readers.rows import Row, clean_texts
from plait.data.sets import hub
from plait.data.sets.download import fetch_all

NAME = "coco-karpathy"
REPOSITORY = "yerevann/coco-karpathy"


def load(
    *, split: str = "all", limit: int | None = None, images: str | Path | None = None
) -> PairDataset:
    """The set, or a part.

    Args:
        split: ``train`` (with ``restval``), ``validation``, ``test`` or ``all``.
        limit: no more pictures of each split than this.
        images: a folder that has the pictures in ``train2014`` and ``val2014`` already.

    Raises:
        DataError: the hub or COCO's server cannot be reached, or a picture is missing.
    """
    folder = Path(images) if images else cache_home() / "sets" / NAME
    wanted = splits.checked(split)
    entries = []
    counts: dict[str, int] = {}
    for name, table in hub.tables(NAME, REPOSITORY).items():
        its = splits.canonical(name)
        if its is None or wanted not in ("all", its):
            continue
        for entry in table:
            if limit is not None and counts.get(its, 0) >= limit:
                break
            counts[its] = counts.get(its, 0) + 1
            entries.append((its, entry))
    jobs = [(entry["url"], folder / entry["filepath"] / entry["filename"]) for _, entry in entries]
    if images:
        missing = [path for _, path in jobs if not path.is_file()]
        if missing:
            raise DataError(f"{len(missing)} of {len(jobs)} pictures are missing", path=missing[0])
    else:
        failures = fetch_all(jobs, "Fetching COCO")
        for (url, _), problem in zip(jobs, failures, strict=True):
            if problem:
                raise DataError(f"{url} {problem}: try again, what has come is kept")
    samples, _ = assemble(_rows(entries, folder), fail=True)
    return PairDataset(samples, NAME, folder, detected=f"Hugging Face hub, {REPOSITORY}")


def _rows(entries: list[tuple[str, dict[str, Any]]], folder: Path) -> Iterator[Row]:
    for number, (split, entry) in enumerate(entries, 1):
        path = folder / entry["filepath"] / entry["filename"]
        ref = FileRef(path, f"{entry['filepath']}/{entry['filename']}")
        yield Row(
            REPOSITORY,
            number,
            name=ref.name,
            key=str(path),
            image=ref,
            texts=clean_texts(list(entry["sentences"])),
            split=split,
            meta={"cocoid": entry["cocoid"], "imgid": entry["imgid"]},
        )
