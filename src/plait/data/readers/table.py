"""Pairs tables: CSV, TSV, JSON lines, a JSON list or XLSX, with columns for files, texts and the rest."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from plait.core.errors import DataError, UserError, cut, shown
from plait.core.files import parse_json
from plait.data.base.inline import is_picture_text
from plait.data.base.sample import BadRow
from plait.data.readers import documents, spreadsheet
from plait.data.readers.columns import MOST_COLUMNS, ignored, plan, tells, unnamed
from plait.data.readers.files import Finder, Lines, check_text, is_image
from plait.data.readers.records import row_of
from plait.data.readers.rows import Bad, Found, Rows

Record: TypeAlias = tuple[int, dict[str, Any]]
_QUOTED = re.compile(r'"[^"]*"')
_SEP = re.compile(r"sep=(.)\r?\n")  # the line by which Excel is told of the delimiter


def read(found: Found) -> Rows:
    """Rows of all files of ``found``, CSV or JSON by content."""
    for path in found.files:
        finder = Finder([path.parent, found.folder], wide=[path.parent], leave=found.leave)
        yield from rows_of(path, finder, found)
        for root in finder.used:
            if root not in finder.roots:
                found.notes.append(f"{path.name}: files found in {root}")


def rows_of(path: Path, finder: Finder, found: Found) -> Rows:
    """Rows of one table whose files ``finder`` finds."""
    records = parse(path, found)
    head = list(itertools.islice(records, 50))
    good = [record for record in head if not isinstance(record, BadRow)]
    if not good and not head:
        raise DataError("holds no rows", path=path)
    if not good:
        yield from _bad_only(itertools.chain(head, records))
        return
    columns = list(dict.fromkeys(name for _, record in good for name in record))
    if "image" not in found.columns:
        _check_names(path, columns)
    chosen = plan(columns, found.columns, path, [record for _, record in good[:20]])
    note = f"{path.name}: {chosen.sentence}"
    more = ignored(chosen, columns, [record for _, record in good])
    for told in (note, f"{path.name}: {more}" if more else note):
        if told not in found.notes:
            found.notes.append(told)
    split = found.splits.get(path)
    for record in itertools.chain(head, records):
        if isinstance(record, BadRow):
            yield record
        else:
            yield row_of(record[1], chosen, finder, path, record[0], split)


def of_pairs(path: Path, mapping: Mapping[str, str]) -> bool:
    """Whether a table has columns of pictures and of texts, by its first rows."""
    try:
        columns, examples = head_of(path)
        plan(columns, mapping, path, examples)
    except DataError:
        return False
    return bool(columns)


def about_pictures(path: Path) -> bool:
    """Whether a table names pictures or texts, or cannot be read (whoever reads it says why)."""
    try:
        columns, examples = head_of(path)
    except UserError:
        return True
    return not columns or any(map(is_image, columns)) or tells(columns, examples)


def head_of(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of a table and its first records."""
    head = [one for one in itertools.islice(parse(path), 20) if not isinstance(one, BadRow)]
    return list(dict.fromkeys(name for _, record in head for name in record)), [
        one for _, one in head
    ]


def _bad_only(records: Iterator[Record | BadRow]) -> Rows:
    yield from (record for record in records if isinstance(record, BadRow))


def parse(path: Path, found: Found | None = None) -> Iterator[Record | BadRow]:
    """Numbered records of a CSV, TSV, JSONL, JSON or XLSX file.

    Numbers are lines, entries of JSON, or rows of a sheet. ``found`` says which sheet, and gets notes.
    """
    if spreadsheet.is_workbook(path):
        yield from spreadsheet.records(path, *((found.sheet, found.notes) if found else ()))
        return
    start = Lines(path, "").head.lstrip()
    if start[:1] == "[" and path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        for number, entry in enumerate(documents.load(path), 1):
            yield _entry(path, number, entry)
    elif start[:1] == "{" and path.suffix.lower() == ".json" and _is_one_object(start):
        yield _entry(path, 1, documents.load(path))
    elif start[:1] == "{" or path.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _json_lines(path)
    else:
        yield from _csv(path)


def _is_one_object(start: str) -> bool:
    """Whether JSON goes on behind its first line, as people indent it."""
    try:
        parse_json(start.split("\n", 1)[0])
    except ValueError:
        return True
    return False


def _json_lines(path: Path) -> Iterator[Record | BadRow]:
    lines = Lines(path, "\n")
    for number, line in enumerate(lines, 1):
        lines.taken = 0
        if not line.strip():
            continue
        try:
            check_text(line)
            yield _entry(path, number, parse_json(line))
        except Bad as bad:
            yield BadRow(str(path), number, bad.problem, bad.kind)
        except ValueError as error:
            yield BadRow(str(path), number, f"is no valid JSON: {error}", "bad-json")


def _entry(path: Path, number: int, entry: Any) -> Record | BadRow:
    if isinstance(entry, dict):
        return number, entry
    kind = type(entry).__name__
    return BadRow(str(path), number, f"must be a JSON object, not {kind}", "wrong-type")


def delimiter(text: str, path: Path) -> str:
    """The delimiter of a table: the one its header line has most of outside quotes."""
    text = text.lstrip("\r\n")
    stated = _SEP.match(text)
    if stated:
        return stated[1]
    header = _QUOTED.sub("", text.splitlines()[0] if text else "")
    if path.suffix.lower() == ".tsv" and "\t" in header:
        return "\t"
    return max(",\t;|", key=header.count)


def _csv(path: Path) -> Iterator[Record | BadRow]:
    lines = Lines(path, "")
    # strict: a quote that nobody closes must not swallow the rows after it unseen
    reader = csv.reader(iter(lines), delimiter=delimiter(lines.head, path), strict=True)
    csv.field_size_limit(10_000_000)
    header: list[str] = []
    stated: list[str] = []  # the same as the file has it, with empty names
    while True:
        number = reader.line_num + 1
        lines.taken = 0
        try:
            cells = next(reader)
            check_text("\t".join(cells))
        except StopIteration:
            return
        except csv.Error as error:
            last = reader.line_num
            lines_read = f" (read to line {last})" if last > number else ""
            problem = f"is not well-formed CSV: {error}{lines_read}: check the quotes"
            if not header:  # else the next row would pass for it
                raise DataError(problem, path=path, row=number) from None
            yield BadRow(str(path), number, problem, "bad-csv")
            continue
        except Bad as bad:
            if not header:
                raise DataError(bad.problem, path=path, row=number) from None
            yield BadRow(str(path), number, bad.problem, bad.kind)
            continue
        if not cells or (not header and cells == ["sep=", ""]):
            continue
        if not header:
            stated = [cell.strip() for cell in cells]
            header = unnamed(stated)
            _check_header(path, header)
            continue
        if not any(map(str.strip, cells[len(header) :])):  # commas at the end of every line
            cells = cells[: len(header)]
        if not any(stated[len(cells) :]):
            cells += [""] * (len(header) - len(cells))
        if len(cells) != len(header):
            problem = (
                f"has {len(cells)} columns where the header has {len(header)}: "
                "put quotes around texts that hold the delimiter"
            )
            yield BadRow(str(path), number, problem, "bad-csv")
            continue
        yield number, dict(zip(header, cells, strict=True))


def _check_names(path: Path, columns: Sequence[str]) -> None:
    """Raises `DataError` where a row stands for the names of the columns: it would be lost."""
    picture = next((name for name in columns if is_image(name)), None)
    if picture is None:
        return
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        entry = json.dumps({"image": picture}, ensure_ascii=False)[:-1]
        problem = f'has {picture!r} as a key: write a list of {entry}, "text": ...}} instead'
        raise DataError(cut(problem), path=path)
    raise _no_header(path, picture)


def _no_header(path: Path, cell: str) -> DataError:
    return DataError(
        f"starts with a row ({shown(cell)}), not with the names of its columns: add a line such as "
        "image,caption at the top",
        path=path,
    )


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) > MOST_COLUMNS:
        raise DataError(
            f"has {len(header):,} columns, at most {MOST_COLUMNS:,} are read", path=path
        )
    picture = next((name for name in header if is_picture_text(name)), None)
    if picture is not None:
        raise _no_header(path, picture)
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise DataError(f"the header names {shown(doubled[0])} twice", path=path, row=1)
