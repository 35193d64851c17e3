"""Workbooks: the same samples as their CSV, and what cannot be read told."""

from __future__ import annotations

import datetime
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from plait.core.errors import DataError, MissingExtra
from plait.data import inspect, open_dataset
from plait.data.audit.audit import audit
from plait.data.readers import spreadsheet

openpyxl = pytest.importorskip("openpyxl", reason="reading workbooks needs the extra xlsx")

TWO = {"1": ("one",), "2": ("two",)}
PAIRS = [["image", "caption"], ["1.jpg", "one"], ["2.jpg", "two"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures."""
    for number in (1, 2):
        Image.new("RGB", (4, 4), (90 * number, 0, 0)).save(tmp_path / f"{number}.jpg")
    return tmp_path


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def texts(source: str | Path, **options: Any) -> dict[str, tuple[str, ...]]:
    return {sample.id: sample.texts for sample in open_dataset(source, **options)}


@pytest.mark.parametrize(
    "rows",
    [
        PAIRS,
        [["Our products in 2019"], [], *PAIRS[:2], [None, None], PAIRS[2], [None]],
        [[None, None, *row] for row in PAIRS],  # the table starts in column C
        [[*row, None, None] for row in PAIRS],
        [[None, *PAIRS[0]], [0, *PAIRS[1]], [1, *PAIRS[2]]],  # an index without a name
        [["the shop", None], [None, "caption", "image"], [None, "one", "1.jpg"],
         [None, "two", "2.jpg"]],
    ],
)  # fmt: skip
def test_sheets_as_people_lay_them_out(rows: list[list[Any]], folder: Path) -> None:
    book = workbook(folder / "pairs.xlsx", Sheet1=rows)
    assert texts(book) == texts(folder) == TWO


def test_a_header_of_two_lines_below_merged_cells(folder: Path) -> None:
    rows = [["image", "caption", None], [None, "en", "zh"], ["1.jpg", "one", "一"]]
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.active.merge_cells("B1:C1")
    book.active.merge_cells("A1:A2")
    book.save(folder / "pairs.xlsx")
    [sample] = open_dataset(folder / "pairs.xlsx")
    assert (sample.texts, sample.languages) == (("one", "一"), ("en", "zh"))


def test_cells_are_the_texts_that_a_person_sees(folder: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(
        ["sample_id", "image", "caption", "day", "at", "price", "sold", "number", "text id"]
    )
    day = datetime.datetime(2019, 7, 14)
    at = datetime.datetime(2019, 7, 14, 9, 30)
    sheet.append([7, "1.jpg", 3.0, day, at, 1.5, True, 1.0, "00123"])
    sheet["A2"].number_format = "00000"
    book.save(folder / "pairs.xlsx")
    [sample] = open_dataset(folder / "pairs.xlsx")
    assert (sample.id, sample.texts) == ("00007", ("3",))
    assert dict(sample.meta) == {
        "day": "2019-07-14",
        "at": "2019-07-14 09:30:00",
        "price": "1.5",
        "sold": "TRUE",
        "number": "1",
        "text id": "00123",
    }


def test_formulas_give_the_values_that_were_saved(folder: Path) -> None:
    book = workbook(folder / "pairs.xlsx", S=[*PAIRS, ["2.jpg", '=CONCAT("t","wo")']])
    with pytest.raises(DataError, match=r"row 4: the formula below 'caption' has no value"):
        open_dataset(book)
    assert inspect(book)["skipped"]["kinds"] == {"no-value": 1}
    # what a spreadsheet program adds to the file when it saves it
    with zipfile.ZipFile(book) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    part = parts["xl/worksheets/sheet1.xml"]
    assert b"<v /></c>" in part or b"<v></v></c>" in part
    for empty in (b"<v />", b"<v></v>"):
        part = part.replace(empty, b"<v>counted</v>")
    part = part.replace(b'<c r="B4">', b'<c r="B4" t="str">')
    with zipfile.ZipFile(book, "w") as packed:
        for name, content in parts.items():
            packed.writestr(name, part if name.endswith("sheet1.xml") else content)
    assert texts(book)["2"] == ("two", "counted")


def test_one_of_several_sheets(folder: Path) -> None:
    prices = [["item", "price"], ["pear", 3], ["plum", 4]]
    book = workbook(folder / "pairs.xlsx", Notes=[["ask Ann"]], Prices=prices, Pairs=PAIRS)
    assert texts(book) == TWO
    (note,) = [note for note in inspect(folder)["notes"] if note["kind"] == "unread-sheet"]
    assert note["message"] == "pairs.xlsx: the sheet 'Pairs' is read, not 'Notes', 'Prices'"
    others = [PAIRS[0], ["1.jpg", "eins"], ["2.jpg", "zwei"]]
    workbook(folder / "pairs.xlsx", Englisch=PAIRS, Deutsch=others)
    with pytest.raises(DataError, match=r"the sheets 'Englisch', 'Deutsch': name one, .*xlsx#Eng"):
        open_dataset(folder)
    assert texts(f"{book}#Deutsch") == {"1": ("eins",), "2": ("zwei",)}
    with pytest.raises(DataError, match=r"no sheet 'Deutch'; did you mean 'Deutsch'"):
        open_dataset(f"{book}#Deutch")


def test_the_workbook_that_a_table_was_saved_from(folder: Path) -> None:
    (folder / "pairs.csv").write_text("image,caption\n1.jpg,one\n2.jpg,two\n")
    workbook(folder / "pairs.xlsx", S=[PAIRS[0], ["1.jpg", "old"]])
    (folder / "~$pairs.xlsx").write_bytes(b"who has it open")
    result = inspect(folder)
    assert texts(folder) == TWO
    assert {note["message"] for note in result["notes"] if note["kind"] == "unread-table"} == {
        "pairs.xlsx is not read: the rows come from pairs.csv",
        "~$pairs.xlsx is not read: it is the lock of a workbook that is open elsewhere",
    }


def test_a_workbook_about_something_else(folder: Path) -> None:
    workbook(folder / "budget.xlsx", S=[["item", "cost"], ["rent", 900], ["food", 300]])
    result = inspect(folder)
    assert (result["format"], result["samples"]) == ("images", 2)
    assert (
        "budget.xlsx is not read: it has no columns of pictures" in result["notes"][-1]["message"]
    )


def test_a_damaged_or_endless_workbook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = workbook(folder / "pairs.xlsx", S=PAIRS)
    monkeypatch.setattr(spreadsheet, "MOST_UNPACKED", 100)
    with pytest.raises(DataError, match="unpacks to"):
        open_dataset(book)
    monkeypatch.undo()
    with zipfile.ZipFile(book) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(book, "w") as packed:
        for name, content in parts.items():
            packed.writestr(name, content[: len(content) // 2] if "sheet1" in name else content)
    with pytest.raises(DataError, match="is no readable workbook"):
        open_dataset(book)
    assert [row.kind for row in audit(folder, images=False).rows][:1] == ["unreadable-source"]
    book.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="is no readable workbook: save it again"):
        open_dataset(book)
    (folder / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(DataError, match="save it as XLSX or CSV"):
        open_dataset(folder / "old.xls")


def test_without_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = workbook(folder / "pairs.xlsx", S=PAIRS)
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    monkeypatch.setattr(spreadsheet, "available", lambda: False)
    with pytest.raises(MissingExtra, match=r"reading pairs.xlsx needs openpyxl.*\[xlsx\]"):
        open_dataset(book)
    (note,) = inspect(folder)["notes"]
    assert "pairs.xlsx is not read: it needs openpyxl, pip install" in note["message"]
