"""Data sets of the Hugging Face hub (``hf/OWNER/NAME[:CONFIG]``), or folders of ``save_to_disk``.

Tables stay on disk, mapped. With streaming nothing is stored: rows come from the hub one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plait.core.errors import DataError
from plait.core.media import BytesRef
from plait.data.base.splits import splits_of_names
from plait.data.readers import arrow
from plait.data.readers.cells import Embedded
from plait.data.readers.columns import plan
from plait.data.readers.files import Finder
from plait.data.readers.records import row_of
from plait.data.readers.rows import Found, Rows


def read(found: Found) -> Rows:
    """Rows of every split; a data set with one split alone states none."""
    local = found.root.exists()
    tables = from_disk(found.root) if local else from_hub(str(found.root), found.streaming)
    stated = splits_of_names(tables)
    finder = Finder([found.folder], leave=found.leave) if local else _cached(found)
    paths = {name: found.root / name if len(tables) > 1 else found.root for name in tables}
    if found.streaming and not local:
        for name, data in tables.items():
            yield from _streamed(data, paths[name], found, finder, stated[name])
        return
    parts = [arrow.Part(paths[name], table_of(data), stated[name]) for name, data in tables.items()]
    yield from arrow.read(parts, found, finder)


def _cached(found: Found) -> Finder:
    """Finds files of a set of the hub: in the caches that it was fetched to, nowhere else."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    finder = Finder([Path()], leave=found.leave)
    finder.own = [Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE)]
    return finder


def from_disk(path: Path) -> dict[str, Any]:
    """Split name to data set, of a folder that ``save_to_disk`` wrote.

    Raises:
        DataError: the folder is damaged.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # of a damaged folder any of Arrow's, JSON's and its own
        raise DataError(f"cannot be loaded by datasets: {error}", path=path) from error
    return dict(loaded) if isinstance(loaded, Mapping) else {"all": loaded}


def from_hub(name: str, streaming: bool = False) -> dict[str, Any]:
    """Split name to data set of ``hf/OWNER/NAME[:CONFIG]``.

    Raises:
        DataError: the hub cannot be reached, or has no such data set.
    """
    import datasets

    name = name.removeprefix("hf/")
    repository, _, config = name.partition(":")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(repository, config or None, streaming=streaming)
    except Exception as error:  # whatever went wrong on the way, the user cannot have the data
        reason = str(error).split("\n", 1)[0]
        raise DataError(
            f"{repository} could not be loaded from the Hugging Face hub ({reason}); "
            "where no hub is reachable, fetch it elsewhere with save_to_disk and open that folder"
        ) from error
    return dict(loaded) if isinstance(loaded, Mapping) else {"all": loaded}


def table_of(data: Any) -> Any:
    """The Arrow table of a data set of the hub, mapped from disk, with pictures as their bytes."""
    if data._indices is not None:  # a filtered or shuffled view: the table holds other rows too
        data = data.flatten_indices()
    return data.data.table.replace_schema_metadata(data.features.arrow_schema.metadata)


def _streamed(data: Any, path: Path, found: Found, finder: Finder, split: str | None) -> Rows:
    chosen = None
    for number, record in enumerate(data.decode(False), 1):
        if chosen is None:
            chosen = plan(list(record), found.columns, path, [record])
        for column in (chosen.image, *chosen.media.values()):
            if column is not None and isinstance(record.get(column), Mapping):
                record[column] = _embedded(record[column], f"{column}[{number}]")
        yield row_of(record, chosen, finder, path, number, split)


def _embedded(cell: Mapping[str, Any], fallback: str) -> Any:
    path = cell.get("path") or ""
    if cell.get("bytes") is None:
        return path or None
    data = cell["bytes"]
    key = ("embedded", path, hashlib.sha256(data).digest())
    return Embedded(BytesRef(data, path or fallback), path, key)
