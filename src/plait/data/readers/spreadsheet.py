"""XLSX workbooks: one sheet as the table that its CSV would be, through openpyxl (extra ``xlsx``).

A cell is the text that a person sees: the value a formula came to, ``1`` for 1.0, ``2019-07-14`` for
a day, ``00123`` where the format of a number keeps its zeros. Titles above the header, a second line
of the header, empty rows and columns without a name are taken as what they are.
"""

from __future__ import annotations

import datetime
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from plait.core.errors import DataError, MissingExtra, cut, did_you_mean, shown
from plait.core.files import regular
from plait.data.base.notes import Note
from plait.data.base.sample import BadRow
from plait.data.readers.columns import LANGUAGES, MOST_COLUMNS, NAMES, unnamed

SUFFIXES = (".xlsx", ".xlsm")
MOST_UNPACKED = 512 << 20
"""Bytes that a workbook may unpack to: it is a zip, and openpyxl holds its texts in memory."""

_SHOWN = 6  # names of sheets in a message
_ABOVE = 20  # rows among which the header is looked for
_ZEROS = re.compile(r"0+")
_NUMBER = re.compile(r"\d{1,2}")
_ALIASES = frozenset(alias for aliases in NAMES.values() for alias in aliases)

# What openpyxl, zipfile, zlib and the XML parser (its error is a SyntaxError) raise while they read.
_DAMAGED = (
    ValueError, LookupError, TypeError, AttributeError, SyntaxError, zipfile.BadZipFile, zlib.error,
    OSError,
)  # fmt: skip

Cells: TypeAlias = list[str]
Record: TypeAlias = tuple[int, dict[str, str]]


def is_workbook(path: Path) -> bool:
    """Whether a file is a workbook by its name and its content."""
    if path.suffix.lower() not in SUFFIXES or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as packed:
            return "xl/workbook.xml" in packed.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def divided(source: str) -> tuple[Path, str] | None:
    """``pairs.xlsx#SHEET`` as file and sheet; None for anything else."""
    name, mark, sheet = source.rpartition("#")
    if mark and name.lower().endswith(SUFFIXES) and Path(name).is_file():
        return Path(name), sheet
    return None


def available() -> bool:
    """Whether the library is installed."""
    from importlib.util import find_spec

    return find_spec("openpyxl") is not None


def records(path: Path, sheet: str | None = None, notes: list[str] | None = None) -> Iterator[Any]:
    """Numbered records of the sheet that holds the table; numbers are rows of the sheet.

    Args:
        path: the workbook.
        sheet: the name of a sheet; None: the only one that holds a table.
        notes: gets what a user should know.

    Raises:
        MissingExtra: openpyxl is not installed.
        DataError: no readable workbook, no such sheet, or several that hold tables.
    """
    book = _open(path)
    try:
        chosen = _sheet(path, book, sheet, [] if notes is None else notes)
        yield from _records(path, chosen)
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    finally:
        book.close()


def _open(path: Path, formulas: bool = False) -> Any:
    try:
        import openpyxl
    except ImportError:
        raise MissingExtra("openpyxl", "xlsx", f"reading {path.name}") from None
    size = regular(path, None).st_size
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(info.file_size for info in packed.infolist())
        if unpacked > MOST_UNPACKED:
            raise DataError(
                f"unpacks to {unpacked / 1e9:.1f} GB from {size / 1e6:.1f} MB, at most "
                f"{MOST_UNPACKED / 1e9:.1f} GB are read: save the sheet as CSV (UTF-8)",
                path=path,
            )
        return openpyxl.load_workbook(path, read_only=True, data_only=not formulas)
    except DataError:
        raise
    except Exception as error:  # of a damaged workbook any of zipfile's, XML's and openpyxl's own
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = cut(str(error).split("\n", 1)[0], 120)
    return DataError(f"is no readable workbook ({reason}): save it again, or as CSV", path=path)


def _sheet(path: Path, book: Any, wanted: str | None, notes: list[str]) -> Any:
    """The sheet of that name, or the only one with a table: two rows of two cells each."""
    names = [sheet.title for sheet in book.worksheets]
    if wanted is not None:
        if wanted not in names:
            hint = did_you_mean(wanted, names) or f"; there are {_listed(names)}"
            raise DataError(f"has no sheet {shown(wanted)}{hint}", path=path)
        return book[wanted]
    holding = [sheet for sheet in book.worksheets if _is_table(sheet)]
    visible = [sheet for sheet in holding if sheet.sheet_state == "visible"] or holding
    if len(visible) > 1:  # a list of prices beside the pairs
        visible = [sheet for sheet in visible if _is_of_pairs(sheet)] or visible
    if len(visible) > 1:
        titles = _listed([sheet.title for sheet in visible])
        first = cut(visible[0].title)
        raise DataError(
            f"holds several tables, in the sheets {titles}: name one, such as "
            f"'{path.name}#{first}'",
            path=path,
        )
    if not visible:
        raise DataError("holds no rows", path=path)
    others = [name for name in names if name != visible[0].title]
    if others:
        told = f"{path.name}: the sheet {shown(visible[0].title)} is read, not {_listed(others)}"
        notes.append(Note(told, "unread-sheet", others))
    return visible[0]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown(name) for name in names[:_SHOWN]) + more


def _is_table(sheet: Any) -> bool:
    full = (sum(cell != "" for cell in cells) > 1 for _, cells in _rows(sheet, _ABOVE))
    return sum(full) > 1


def _is_of_pairs(sheet: Any) -> bool:
    head = {name.lower() for _, cells in _rows(sheet, _ABOVE) for name in cells}
    return bool(head & set(NAMES["image"])) and bool(head & set(NAMES["text"]))


def _rows(sheet: Any, most: int | None = None) -> Iterator[tuple[int, Cells]]:
    """(row, its cells as texts) of the rows that hold anything."""
    sheet.reset_dimensions()  # what a file states of its size need not be true
    for number, cells in enumerate(sheet.iter_rows(max_row=most), 1):
        if len(cells) > MOST_COLUMNS:
            raise DataError(f"row {number} has more than {MOST_COLUMNS:,} columns")
        texts = [_text(cell) for cell in cells]
        if any(texts):
            yield number, texts


def _text(cell: Any) -> str:
    """What a person sees in a cell."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.datetime):
        day = value.time() == datetime.time()
        return value.date().isoformat() if day else value.isoformat(" ", "seconds")
    if isinstance(value, int | float):
        if isinstance(value, float) and not value.is_integer():
            return repr(value)
        whole = str(int(value))
        zeros = _ZEROS.fullmatch(cell.number_format or "")
        return whole.zfill(len(zeros[0])) if zeros else whole
    return str(value).strip()


def _records(path: Path, sheet: Any) -> Iterator[Record | BadRow]:
    rows = _rows(sheet)
    header: Cells = []
    for _, cells in rows:
        if sum(cell != "" for cell in cells) > 1:  # else it is a title above the table
            header = cells
            break
    if not header:
        raise DataError("holds no table: a header and rows of at least two cells", path=path)
    second = next(rows, None)
    if second is not None and _is_second_line(header, second[1]):
        header, second = _joined(header, second[1]), None
    names = unnamed(header)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"the header names {shown(doubled[0])} twice", path=path)
    lacking = _Formulas(path, sheet.title)
    for number, cells in itertools.chain([] if second is None else [second], rows):
        cells = (cells + [""] * len(names))[: len(names)]
        place = next(
            (
                column
                for column, cell in enumerate(cells)
                if cell == "" and header[column] and lacking.has(number, column)
            ),
            None,
        )
        if place is not None:
            yield BadRow(
                str(path),
                number,
                f"the formula below {shown(names[place])} has no value in the file: open it in a "
                "spreadsheet program and save it",
                "no-value",
            )
            continue
        yield number, dict(zip(names, cells, strict=True))


def _is_second_line(header: Cells, cells: Cells) -> bool:
    """Whether a row belongs to the header: words for columns alone, some below merged cells."""
    words = [cell.lower() for cell in cells if cell]
    below = any(
        cell and not (header[place : place + 1] or [""])[0] for place, cell in enumerate(cells)
    )
    known = (
        word in _ALIASES or word in LANGUAGES or _NUMBER.fullmatch(word) is not None
        for word in words
    )
    return below and all(known)


def _joined(header: Cells, second: Cells) -> Cells:
    """One name for each column of a header of two lines: ``caption`` above ``en`` is ``caption_en``."""
    names, above = [], ""
    for place in range(max(len(header), len(second))):
        first, below = ((line[place : place + 1] or [""])[0] for line in (header, second))
        above = first or above
        if not below or below.lower() in _ALIASES:
            names.append(below or first)
        else:
            names.append(f"{above}_{below}")
    return names


class _Formulas:
    """Where a sheet has formulas, looked up once a value is missing."""

    def __init__(self, path: Path, title: str) -> None:
        self._path, self._title = path, title
        self._places: set[tuple[int, int]] | None = None

    def has(self, row: int, column: int) -> bool:
        """Whether the cell in this row (from 1) and column (from 0) is one."""
        if self._places is None:
            book = _open(self._path, formulas=True)
            sheet = book[self._title]
            sheet.reset_dimensions()
            self._places = {
                (number, place)
                for number, cells in enumerate(sheet.iter_rows(), 1)
                for place, cell in enumerate(cells)
                if cell.data_type == "f"
            }
            book.close()
        return (row, column) in self._places
