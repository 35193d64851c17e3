"""Every file of a folder that gave no sample, counted in a note with the reason."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from plait.core.errors import cut, install_command
from plait.core.media import FileRef, MediaRef
from plait.data.base.notes import Note, names
from plait.data.base.sample import BadRow, Sample
from plait.data.readers import spelling, spreadsheet
from plait.data.readers.dicom import is_unnamed
from plait.data.readers.files import MEDIA_SUFFIXES, is_hidden, is_image, shown, suffix
from plait.data.readers.rows import Found
from plait.modalities.image.forms import undecoded

SHEETS = (*spreadsheet.SUFFIXES, ".xls", ".xlsb", ".ods", ".numbers")
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".zst", ".rar")
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_BY_NATURE = re.compile(r"(read.?me|licen[cs]e|requirements|notes?|changelog|classes|labels)\b")
TEXTLESS = "textless-picture"
_ACCENTS = "spell their accents otherwise than the disk does (Unicode NFC and NFD)"
_OWN = ("sidecar", "classfolder", "images", "dicom")  # whose pictures are rows all


def unread_notes(found: Found, samples: Iterable[Sample], bad: Iterable[BadRow]) -> list[Note]:
    """Notes on the files below the folder that was opened; none for a file, or a set of the hub.

    Args:
        found: what was read.
        samples: that it gave.
        bad: rows that gave none: the pictures of those that lack only a text are counted so.
    """
    notes = list(_respelled(samples))
    if not found.root.is_dir() or found.format == "huggingface":
        return notes
    files, links = _below(found.root)
    top = os.path.abspath(found.root)  # noqa: PTH100
    read = _read(found, samples)
    textless = {
        os.path.abspath(row.bare.image.path)  # noqa: PTH100
        for row in bad
        if row.bare is not None and row.bare.image.path is not None
    }
    unread = [name for name in files if f"{top}/{name}" not in read]
    lacking = [shown(name) for name in unread if f"{top}/{name}" in textless]
    if lacking:
        count = "1 picture has" if len(lacking) == 1 else f"{len(lacking)} pictures have"
        notes.append(Note(f"{count} no text: {names(lacking)}", TEXTLESS, lacking))
    rest = (name for name in unread if f"{top}/{name}" not in textless)
    notes += _grouped((*_reason(found, name), name) for name in rest)
    if links:
        message = f"{len(links)} folders are links, which are not followed: {names(links)}"
        notes.append(Note(message, "linked-folder", links))
    return notes


def undecoded_notes(root: Path, files: Iterable[str]) -> list[Note]:
    """Notes on those files below a folder that are pictures which plait does not decode."""
    every = ((name, undecoded(_form_of(root, name))) for name in files)
    return _grouped(
        ("undecoded-picture", str(form), name) for name, form in every if form is not None
    )


def _below(root: Path) -> tuple[list[str], list[str]]:
    """The files below a folder, and the folders that are links: neither is entered."""
    top = os.path.abspath(root)  # noqa: PTH100
    names_of_files, links = [], []
    for base, folders, files in os.walk(top):
        folders.sort()
        names_of_files += [f"{base}/{name}"[len(top) + 1 :] for name in sorted(files)]
        places = (f"{base}/{name}" for name in folders)
        links += [shown(place[len(top) + 1 :]) for place in places if os.path.islink(place)]  # noqa: PTH114
    return names_of_files, links


def _read(found: Found, samples: Iterable[Sample]) -> set[str]:
    """The files from which something was read, as absolute paths."""
    refs: list[MediaRef | None] = []
    for sample in samples:
        refs.append(sample.image)
        refs += sample.media.values()
    paths = [ref.path for ref in refs if ref is not None and ref.path is not None]
    return {os.path.abspath(path) for path in (*found.files, *found.read, *paths)}  # noqa: PTH100


def _reason(found: Found, name: str) -> tuple[str, str]:
    """The kind of note on a file that was not read, and why it was not."""
    ending = suffix(name)
    low = name.lower()
    if any(map(is_hidden, name.split("/"))):
        return "hidden-file", "hidden, or kept by a system for itself"
    if name in found.reasons:
        return "unread-table", found.reasons[name]
    form = undecoded(_form_of(found.root, name))
    if form is not None:
        return "undecoded-picture", str(form)
    if is_image(name) or is_unnamed(found.root, name):
        if found.format in _OWN:
            return "unusable-picture", "see the bad rows"
        return "unnamed-picture", "no row that gives a sample names it"
    if ending in MEDIA_SUFFIXES:
        return "unnamed-file", "recordings and series that no row names"
    if low.endswith(SHEETS):
        return "unread-table", _of_sheets(found, name)
    if low.endswith(ARCHIVES):
        return "packed-file", "it is packed"
    if low.endswith((".txt", ".caption")) and not _BY_NATURE.match(low.rsplit("/", 1)[-1]):
        return "unpaired-text", _of_text(found, name)
    if low.endswith(_TABLES):
        if not (found.root / name).is_file():
            return "unread-table", "it is a link that leads nowhere, or no regular file"
        if (found.root / name).stat().st_size == 0:
            return "unread-table", "it is empty"
        if found.files:
            return "unread-table", f"the rows come from {found.files[0].name}"
        return "unread-table", "it has no columns of pictures and texts (--column ROLE=COLUMN)"
    return "other-file", "neither a picture nor a table"


def _form_of(root: Path, name: str) -> str:
    """The ending of a file; of DICOM files without one what they should have."""
    return "dcm" if is_unnamed(root, name) else suffix(name)


def _of_text(found: Found, name: str) -> str:
    """Why a file of text was not read."""
    stem = name.rpartition(".")[0]
    if name.lower().endswith(".caption") and (found.root / f"{stem}.txt").exists():
        return "the .txt of the same picture is"
    if found.files:
        return f"the rows come from {found.files[0].name}"
    return "there is no picture of that name beside it, or most pictures have no such text"


def _of_sheets(found: Found, name: str) -> str:
    """Why a spreadsheet was not read."""
    path = found.root / name
    if path.name.startswith("~$"):
        return "it is the lock of a workbook that is open elsewhere"
    if path.suffix.lower() not in spreadsheet.SUFFIXES:
        return "save it as XLSX or CSV (UTF-8)"
    if not path.is_file() or not spreadsheet.is_workbook(path):
        return "it is no readable workbook: save it again, or as CSV (UTF-8)"
    if not spreadsheet.available():
        return f"it needs openpyxl, {install_command('xlsx')}; or save it as CSV (UTF-8)"
    if found.files:
        return f"the rows come from {found.files[0].name}"
    return "it has no columns of pictures and texts (--column ROLE=COLUMN)"


def _grouped(files: Iterable[tuple[str, str, str]]) -> list[Note]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for kind, reason, name in files:
        groups[kind, reason].append(shown(name))
    return [_note(kind, reason, every) for (kind, reason), every in groups.items()]


def _note(kind: str, reason: str, every: list[str]) -> Note:
    if len(every) == 1:
        return Note(f"{every[0]} is not read: {reason}", kind, every)
    if kind == "unnamed-picture":
        message = f"{len(every)} pictures have no row that gives a sample: {names(every)}"
    else:
        message = f"{len(every)} files are not read ({names(every)}): {reason}"
    return Note(message, kind, every)


def _respelled(samples: Iterable[Sample]) -> Iterator[Note]:
    """Notes on names that stand in the rows otherwise than on the disk, and were found."""
    ways: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        ref = sample.image
        if not isinstance(ref, FileRef):
            continue
        if ref.stated:
            ways[spelling.difference(ref.stated, ref.name)].append(cut(shown(ref.stated)))
        elif not ref.name.isascii():
            path = str(ref.path)
            if not path.endswith(ref.name) and unicodedata.normalize("NFC", path).endswith(
                unicodedata.normalize("NFC", ref.name)
            ):
                ways[_ACCENTS].append(ref.name)
    for way, every in ways.items():
        message = f"{len(every)} names {way}, and were found all the same: {names(every)}"
        yield Note(message, "respelled-name", every)
