"""Opening a source: a path, a catalogue name, or a data set of the Hugging Face hub."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from plait.core.errors import DataError, cut, did_you_mean
from plait.data.base.dataset import PairDataset
from plait.data.base.notes import as_json, with_notes
from plait.data.base.sample import BadRow, Sample
from plait.data.readers import no_captions, spreadsheet
from plait.data.readers.assemble import assemble
from plait.data.readers.detect import READERS, detect
from plait.data.readers.encoding import text_encoding
from plait.data.readers.imagefolder import bare_rows
from plait.data.readers.leave import Leave
from plait.data.readers.rows import Found, Row, Rows
from plait.data.readers.unread import unread_notes

OnBadRow = Literal["fail", "skip"]
Roots: TypeAlias = str | Path | Sequence[str | Path] | None
_WITH_COLUMNS = ("imagefolder", "table", "parquet", "webdataset", "entries", "huggingface", "dicom")


def open_dataset(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_row: OnBadRow = "fail",
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
    every_picture: bool = False,
) -> PairDataset:
    """The samples of a source.

    Args:
        source: a file or folder (its format is told by its content), shards in brace notation
            (``shards/{000..009}.tar``), a name of `plait.data.open.catalog`, or ``hf/OWNER/NAME``.
        columns: which column of a table is what, e.g. ``{"image": "photo", "text": "title"}``.
        on_bad_row: ``fail`` at the first row that gives no sample, or ``skip`` it and keep it in
            ``.skipped``.
        root: a folder, or several, below which the files that rows name may lie besides the
            source's own folder.
        allow_outside: they may lie anywhere.
        encoding: of text files that are not UTF-8, such as ``gbk`` or ``latin-1``.
        every_picture: pictures without a text are samples too: those whose text is missing, and
            those of a folder that no row names.

    Raises:
        DataError: no such source, nothing plait reads, a bad row, rows that name files outside, or
            no sample at all.
    """
    if on_bad_row not in ("fail", "skip"):
        raise DataError(f"on_bad_row must be 'fail' or 'skip', not {on_bad_row!r}")
    if isinstance(source, str):
        from plait.data.open.catalog import CATALOG

        if source in CATALOG:
            return CATALOG[source].open()
    with text_encoding(encoding):
        found = mapped(find(source, Leave.of(root, allow_outside), columns), columns)
        every = with_bare(found) if every_picture else rows(found)
        if on_bad_row == "fail":
            every = found.leave.refusing(every, count=True)
        samples, bad = assemble(every, fail=on_bad_row == "fail")
    notes = [*found.notes, *unread_notes(found, samples, bad), *no_captions.notes_of(samples)]
    if not samples:
        first = f"; the first bad row: {bad[0].error()}" if bad else ""
        problem = with_notes(f"no sample could be read{first}", notes)
        raise DataError(problem, path=found.root, nothing=not bad)
    return PairDataset(samples, found.format, found.root, bad, detected=found.why, notes=notes)


def mapped(found: Found, columns: Mapping[str, str] | None) -> Found:
    """With the user's columns. Raises `DataError` where the format has none."""
    found.columns = dict(columns or {})
    if not columns:
        return found
    if found.format == "flickr8k":  # a mapping makes it the table that it also is
        found.format = "table"
    if found.format not in _WITH_COLUMNS:
        raise DataError(f"columns cannot be mapped in format {found.format}", path=found.root)
    return found


def rows(found: Found) -> Rows:
    """The rows of what was found, by its format's reader."""
    module, _, function = READERS[found.format].partition(":")
    read = cast(Callable[[Found], Rows], getattr(importlib.import_module(module), function))
    return read(found)


def with_bare(found: Found) -> Rows:
    """The rows, those that lack only a text too, then the pictures of the folder that none names."""
    if found.format == "images":  # its rows are the pictures of the folder
        yield from rows(found)
        return
    named = set()
    for row in rows(found):
        one = row.bare or row if isinstance(row, BadRow) else row
        if isinstance(one, Row) and one.image is not None and one.image.path is not None:
            named.add(os.path.abspath(one.image.path))  # noqa: PTH100  half the time of Path
        yield one
    if found.root.is_dir():
        yield from bare_rows(found, without=named)


def find(
    source: str | Path, leave: Leave | None = None, columns: Mapping[str, str] | None = None
) -> Found:
    """Where a source is and what it holds. Raises `DataError` when there is no such thing."""
    leave = leave or Leave()
    found = _find(source, leave, columns)
    found.leave = leave
    return found


def _find(source: str | Path, leave: Leave, columns: Mapping[str, str] | None) -> Found:
    path = Path(source)
    if path.exists():
        return detect(path, leave, columns)
    name = str(source)
    of_sheet = spreadsheet.divided(name)
    if of_sheet is not None:
        found = detect(of_sheet[0], leave)
        found.sheet = of_sheet[1]
        return found
    if name.startswith("hf/"):
        return Found("huggingface", path, (), "a data set of the Hugging Face hub")
    if "{" in name or "*" in name or "::" in name:
        from plait.data.readers.webdataset import expand

        return expand(name)
    from plait.data.open.catalog import CATALOG

    hint = did_you_mean(name, CATALOG) or f"; built-in sets: {', '.join(CATALOG)}"
    raise DataError(f"there is no file, folder or built-in data set {name!r}{hint}")


def stream(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_row: OnBadRow = "fail",
    root: Roots = None,
    allow_outside: bool = False,
) -> Iterator[Sample]:
    """Samples one by one, for sources too large to open: each row is a sample of its own.

    Data sets of the hub are streamed (nothing is stored); shards are read in order. Rows of one
    picture are not merged, and ids are the bare stems: nothing tells yet whether another picture
    of the source has the same.

    Raises:
        DataError: as `open_dataset`, when the bad row is reached.
    """
    found = mapped(find(source, Leave.of(root, allow_outside), columns), columns)
    found.streaming = True
    every = rows(found)
    if on_bad_row == "fail":
        every = found.leave.refusing(every, count=False)
    for row in every:
        samples, _ = assemble(iter([row]), fail=on_bad_row == "fail")
        yield from samples


def inspect(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
) -> dict[str, Any]:
    """What a source holds, as plain JSON values; bad rows are counted, not raised.

    Returns:
        ``format``, ``detected``, ``samples``, ``texts``, ``splits``, ``languages``,
        ``questions`` (see `plait.data.vqa.answers.describe`), ``notes`` (each ``kind``, ``count``,
        ``message``, ``examples``), ``skipped`` (count, by kind, the first ten) and up to three
        ``examples``.
    """
    from plait.data.vqa.answers import describe

    dataset = open_dataset(
        source,
        columns=columns,
        on_bad_row="skip",
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
    )
    questions = describe(dataset.samples)
    kinds: dict[str, int] = {}
    for bad in dataset.skipped:
        kinds[bad.kind] = kinds.get(bad.kind, 0) + 1
    return {
        "source": str(source),
        "format": dataset.format,
        "detected": dataset.detected,
        "samples": len(dataset),
        "texts": dataset.texts,
        "splits": dataset.split_counts,
        "languages": dataset.language_counts,
        "questions": questions,
        "notes": [as_json(note) for note in dataset.notes],
        "skipped": {
            "count": len(dataset.skipped),
            "kinds": kinds,
            "first": [{"where": bad.where, "problem": bad.problem} for bad in dataset.skipped[:10]],
        },
        "examples": [
            {
                "id": cut(sample.id),
                "where": cut(sample.where),
                "image": None if sample.image is None else cut(sample.image.name),
                "texts": [cut(text) for text in sample.texts],
                "split": split,
                **({"answers": _answers(sample)} if questions else {}),
            }
            for sample, split in list(zip(dataset, dataset.splits, strict=True))[:3]
        ],
    }


def _answers(sample: Sample) -> list[Any]:
    """What people answered, as the source spells it."""
    answer = sample.labels.get("answer")
    answers = sample.labels.get("answers", () if answer is None else (answer,))
    return [cut(one) if isinstance(one, str) else one for one in answers]
