"""Contact sheets: what is drawn where, in which colour, and text in every script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from plait.core.errors import UserError
from plait.retrieval import contact_sheet
from plait.retrieval.sheet import fonts
from plait.retrieval.sheet.sheet import GAP, HEAD, MARGIN, PAPER, RIGHT, SCALE, THUMB


def colour(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


@pytest.fixture
def hits(tmp_path: Path) -> list[dict]:
    found = []
    for number, name in enumerate(["red", "lime", "blue"]):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (30, 30), name).save(path)
        found.append({"id": name, "score": 0.5 - number, "path": str(path), "text": f"{name} 红"})
    return found


def card(sheet: np.ndarray, row_top: int, place: int) -> np.ndarray:
    left, top = (MARGIN + place * (THUMB + GAP)) * SCALE, (row_top + HEAD) * SCALE
    return sheet[top : top + THUMB * SCALE, left : left + THUMB * SCALE]


def test_pictures_stand_in_their_order_and_right_ones_are_framed(hits, tmp_path: Path) -> None:
    path = contact_sheet([("a query", hits)], tmp_path / "out" / "sheet.png", right=[{"lime"}])
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        sheet = np.asarray(opened.convert("RGB")).astype(int)
    for place, wanted in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        drawn = card(sheet, MARGIN, place)
        assert tuple(drawn[THUMB, THUMB]) == wanted  # its middle
        framed = np.abs(drawn[THUMB, 2] - colour(RIGHT)).sum() < 12
        assert framed == (place == 1)
    assert (sheet[2, 2] == colour(PAPER)).all()


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size


def test_every_query_has_its_row_and_a_lost_picture_is_no_failure(hits, tmp_path: Path) -> None:
    (tmp_path / "red.png").unlink()
    hits[1] = {**hits[1], "path": None, "text": None}
    one = size(contact_sheet([("a", hits)], tmp_path / "1.png"))
    two = size(contact_sheet([("a", hits), ("天气", hits)], tmp_path / "2.png"))
    asked = size(contact_sheet([(tmp_path / "blue.png", hits)], tmp_path / "3.png"))
    none = size(contact_sheet([("a", [])], tmp_path / "4.png"))
    assert two[0] == one[0] and two[1] > one[1] * 1.8
    assert asked[0] == one[0] + (THUMB + 2 * GAP) * SCALE
    assert none[1] < one[1]


def test_wrong_calls(hits, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png"):
        contact_sheet([("a", hits)], tmp_path / "sheet.jpg")
    with pytest.raises(UserError, match="at least one query"):
        contact_sheet([], tmp_path / "sheet.png")


def ink(text: str) -> np.ndarray:
    picture = Image.new("L", (200, 40), 0)
    fonts.Script(24).draw(ImageDraw.Draw(picture), (4, 30), text, "white")  # type: ignore[arg-type]
    return np.asarray(picture)


def test_chinese_is_written_with_chinese_glyphs() -> None:
    assert not fonts.unwritable("红色的水果 and 天气")
    first, second = ink("红"), ink("色")
    assert first.any() and (first != second).any()
    assert (first != ink(fonts.MISSING)).any()


def test_without_a_chinese_font_every_character_has_its_box(monkeypatch) -> None:
    dejavu = fonts.font_files()[-1]
    fonts._font_of.cache_clear()
    monkeypatch.setattr(fonts, "font_files", lambda: (dejavu,))
    try:
        assert fonts.unwritable("红") and not fonts.unwritable("red é ")
        np.testing.assert_array_equal(ink("红a"), ink(fonts.MISSING + "a"))
    finally:
        fonts._font_of.cache_clear()


def test_lines_fit_and_lose_nothing_but_what_has_no_room() -> None:
    script = fonts.Script(12)
    words = "a fairly long caption about something that needs several lines"
    lines = script.wrapped(words, 110, 9)
    assert " ".join(lines) == words
    assert all(script.width(line) <= 110 for line in lines)
    short = script.wrapped(words, 110, 2)
    assert short[0] == lines[0] and short[1].endswith("…") and script.width(short[1]) <= 110
    chinese = "一张红色的水果和天气的图片在这里"
    lines = script.wrapped(chinese, 60, 9)
    assert "".join(lines) == chinese and len(lines) > 2
    assert script.wrapped("unbreakable" * 5, 60, 2)[0]
    assert script.wrapped("", 60, 2) == []
