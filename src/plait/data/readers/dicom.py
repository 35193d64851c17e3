"""Folders of DICOM files: a picture a file, its words as columns (see `plait.data.readers.dicom_fields`).

Folder names are no labels here: they are patients, studies and series. Files without an ending count
too, by their content. What a column is to plait is stated, e.g. ``{"text": "StudyDescription"}``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from plait.core.errors import DataError, did_you_mean
from plait.data.base.notes import Note, names
from plait.data.base.sample import BadRow
from plait.data.base.splits import in_splits
from plait.data.readers.dicom_fields import check_asked, meta_of, tags, words_of
from plait.data.readers.files import is_image, suffix, walk
from plait.data.readers.imagefolder import row_of_file
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_split, clean_texts
from plait.modalities.image.dicom import header
from plait.modalities.image.forms import has_pydicom
from plait.modalities.image.structure import MAGIC_OF_DICOM

ENDINGS: Final = ("dcm", "dicom", "dic", "ima")
ROLES: Final = ("text", "group", "split", "id", "labels")
_HEADER: Final = 132


def files_of(root: Path, every: Sequence[str]) -> list[str]:
    """The DICOM files among those of a folder; those without an ending are told by their content."""
    return [name for name in every if suffix(name) in ENDINGS or is_unnamed(root, name)]


def is_unnamed(root: Path, name: str) -> bool:
    """Whether a file is DICOM by its content, and has no ending, or a number for one.

    Scanners call files IM000001 and 1.2.840.113619.2.
    """
    return _may_be(name) and _begins_so(root / name)


def _may_be(name: str) -> bool:
    ending = suffix(name)
    return (not ending or ending.isdecimal()) and not name.rsplit("/", 1)[-1].startswith(".")


def _begins_so(path: Path) -> bool:
    if not path.is_file() or os.path.islink(path):  # noqa: PTH114
        return False
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)[128:] == MAGIC_OF_DICOM
    except OSError:  # a note names it
        return False


def read(found: Found) -> Rows:
    """A row for each picture, DICOM or not.

    Raises:
        DataError: a column that is no field of DICOM.
    """
    asked = tuple(found.columns.values())
    for role in found.columns:
        if role not in ROLES:
            hint = did_you_mean(role, ROLES)
            raise DataError(f"unknown role {role!r} in columns{hint}; roles: {', '.join(ROLES)}")
    check_asked(asked)
    every = list(walk(found.root))
    scans = set(files_of(found.root, every))
    clips: list[str] = []
    columns: dict[str, None] = {}
    for name, split, _ in in_splits([name for name in every if name in scans or is_image(name)]):
        row = row_of_file(found, name, split)
        if isinstance(row, BadRow) or name not in scans:
            yield row
            continue
        try:
            frames = _fill(row, found, asked)
        except Bad as bad:
            yield row.bad(bad.kind, bad.problem)
            continue
        columns |= dict.fromkeys(row.meta)
        if frames > 1:
            clips.append(row.name)
        yield row
    if columns and "text" not in found.columns:
        told = "no field is the text: --column text=NAME (data.columns in recipes) takes one of"
        found.notes.append(Note(f"{told} {', '.join(columns)}", "no-text-column", list(columns)))
    if clips:
        told = f"{len(clips)} DICOM files have several frames, and the middle one is the picture"
        found.notes.append(Note(f"{told}: {names(clips)}", "several-frames", clips))


def _fill(row: Row, found: Found, asked: Sequence[str]) -> int:
    """Gives a row the words of its file; how many frames it has. Raises `Bad`: it has no picture."""
    assert row.image is not None
    assert row.image.path is not None
    try:
        with row.image.path.open("rb") as file:
            told = header(file, tags(asked))
        frames = int(told.get("NumberOfFrames") or 1)
        words = words_of(told, asked)
    except (DataError, OSError, ValueError, TypeError) as error:
        problem = error.problem if isinstance(error, DataError) else f"cannot be read: {error}"
        raise Bad("unreadable-file", f"{row.name}: {problem}") from error
    if "Rows" not in told:
        raise Bad("no-picture", f"{row.name} holds no picture: a report, a plan or a directory")
    columns = found.columns
    row.meta = meta_of(words, columns)
    if "id" in columns:
        row.id = words.get(columns["id"])
    row.group = words.get(columns.get("group", ""))
    if "split" in columns:
        row.split = clean_split(words.get(columns["split"]))
    if "labels" in columns:
        row.labels = {columns["labels"]: words.get(columns["labels"])}
    if "text" in columns:
        row.texts = clean_texts([words.get(columns["text"])])
    return frames


def found_in(root: Path, every: Sequence[str], pictures: Sequence[str]) -> Found | None:
    """A folder most of whose pictures are DICOM, where they can be read; else None."""
    if not has_pydicom():
        return None
    scans = files_of(root, every)
    others = len(set(pictures) - set(scans))
    if not scans or len(scans) <= others:
        return None
    return Found("dicom", root, (), f"DICOM files, such as {scans[0]}")
