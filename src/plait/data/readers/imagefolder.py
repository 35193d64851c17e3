"""Folders of pictures: with ``metadata.csv``/``.jsonl``, with class folders, or bare."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from plait.core.media import FileRef
from plait.data.base.sample import BadRow
from plait.data.base.splits import in_splits
from plait.data.readers.cells import file_key
from plait.data.readers.files import (
    Finder,
    is_image,
    shown,
    stem,
    walk,
)
from plait.data.readers.leave import OUTSIDE
from plait.data.readers.rows import Bad, Found, Row, Rows
from plait.data.readers.sidecars import fill, sidecars, used
from plait.data.readers.table import rows_of


def read(found: Found) -> Rows:
    """Rows of every metadata file; ``file_name`` starts from the folder the metadata is in."""
    for path in found.files:
        yield from _metadata(path, found)


def _metadata(path: Path, found: Found) -> Rows:
    if path.suffix == ".parquet":
        from plait.data.readers.parquet import read_files

        return read_files([path], found, wide=False)
    return rows_of(path, Finder([path.parent], leave=found.leave), found)


def read_classes(found: Found) -> Rows:
    """Pictures under class folders: the text is the class name, the label too.

    ``train/cat/1.jpg`` is of class ``cat`` and states its split when folders of other splits stand
    beside ``train``. A class ``polar_bear`` has the text ``polar bear``.
    """
    names = [name for name in walk(found.root) if is_image(name)]
    for name, split, rest in in_splits(names):
        row = row_of_file(found, name, split)
        if isinstance(row, BadRow):
            yield row
            continue
        if "/" not in rest:
            yield row.bad("no-class", f"{name} is in no class folder: move it into one")
            continue
        label = shown(rest.rsplit("/", 2)[-2])
        row.texts = (label.replace("_", " ").strip(),)
        row.labels = {"label": label}
        yield row


def read_sidecars(found: Found) -> Rows:
    """Pictures beside files of texts of the same name (see `plait.data.readers.sidecars`)."""
    names = list(walk(found.root))
    beside = sidecars(names)
    for name, split, _ in in_splits([name for name in names if is_image(name)]):
        row = row_of_file(found, name, split)
        if isinstance(row, BadRow):
            yield row
            continue
        own = beside.get(name)
        try:
            if own is None:
                raise Bad("empty-text", f"there is no {shown(stem(name))}.txt with its text")
            for file in used(own):
                if not inside(found, found.root / file):
                    raise Bad(OUTSIDE, found.leave.refusal(file, found.root / file))
                found.read.add(found.root / file)
            fill(row, found.root, own)
        except Bad as bad:
            yield row.bad(bad.kind, bad.problem)
            continue
        yield row


def read_bare(found: Found) -> Rows:
    """Pictures alone, without texts: to embed, index and search."""
    yield from bare_rows(found)


def bare_rows(found: Found, without: Collection[str] = ()) -> Rows:
    """The pictures of a folder, but for those of these absolute paths."""
    top = os.path.abspath(found.root)  # noqa: PTH100
    names = [name for name in walk(found.root) if is_image(name)]
    for name, split, _ in in_splits(names):
        if f"{top}/{name}" not in without:
            yield row_of_file(found, name, split)


def inside(found: Found, path: Path) -> bool:
    """Whether a file that lies in the source is no link that leads out of it."""
    return not os.path.islink(path) or found.leave.permits(path, [found.folder, path.parent])  # noqa: PTH114


def row_of_file(found: Found, name: str, split: str | None) -> Row | BadRow:
    """The row of a picture of a folder, without a text; bad where it is a link that leads outside."""
    ref = FileRef(Path(os.path.join(found.root, name)), shown(name))  # noqa: PTH118  a third of Path's time
    row = Row(str(found.root), ref.name, name=ref.name, key=file_key(ref), image=ref, split=split)
    if not inside(found, ref.path):
        return row.bad(OUTSIDE, found.leave.refusal(ref.name, ref.path))
    return row
