"""A contact sheet: a picture of what a few queries found.

Lengths are in points of the finished sheet; `SCALE` pixels make one, for sharp print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from plait.core.errors import DataError, UserError, install_command
from plait.core.files import read_regular, replacing
from plait.modalities.image.decode import decode_to_show
from plait.retrieval.sheet.fonts import MISSING, Length, Script, unwritable

SCALE = 2
THUMB, GAP, MARGIN = 132, 14, 28
HEAD, CAPTION, BELOW = 46, 58, 20  # above a row, under its pictures, after it
INK, SOFT, FAINT, PAPER, CARD = "#1f2328", "#59636e", "#d8dbd5", "#f7f6f2", "#ffffff"
ACCENT, RIGHT = "#3457b2", "#1a7f37"

MOST_LINES = 8  # of a note
Hits = Sequence[Mapping[str, Any]]


def contact_sheet(
    answers: Sequence[tuple[str | Path, Hits]],
    path: str | Path,
    *,
    right: Sequence[set[str]] | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Path:
    """Draws queries with the pictures they found into a PNG, a row each.

    Args:
        answers: (query, results of `plait.retrieval.Index.search`, whose ``score`` may be None); a
            `Path` is a picture that was asked with and is shown.
        path: the PNG to write.
        right: for each query the ids that answer it; their pictures are framed in green.
        title: above all.
        note: a caution about what was found, below all.

    Returns:
        ``path``.

    Raises:
        UserError: nothing to draw, or another ending than ``.png``.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: a contact sheet is a PNG; let its name end in .png")
    if not answers:
        raise UserError("a contact sheet needs at least one query")
    columns = max(1, *(len(hits) for _, hits in answers))
    asked_with_picture = any(isinstance(query, Path) for query, _ in answers)
    width = 2 * MARGIN + columns * THUMB + (columns - 1) * GAP
    width = max(width + (THUMB + 2 * GAP if asked_with_picture else 0), 420)
    top = MARGIN + (40 if title else 0)
    notes = [(one, size) for one, size in ((note, 12), (_note(answers), 10)) if one]
    script = Script(12 * SCALE)
    lines = [
        (line, size)
        for one, size in notes
        for line in script.wrapped(one, (width - 2 * MARGIN) * SCALE, MOST_LINES)
    ]
    heights = [HEAD + BELOW + _content(query, hits) for query, hits in answers]
    height = top + sum(heights) + 16 * len(lines) + MARGIN - BELOW
    sheet = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        _write(pen, (MARGIN, MARGIN + 20), title, 22, INK, width - 2 * MARGIN)
    for number, (query, hits) in enumerate(answers):
        marked = right[number] if right is not None else set()
        _row(sheet, pen, top + sum(heights[:number]), query, hits, marked, width)
    for number, (line, size) in enumerate(reversed(lines)):
        _write(pen, (MARGIN, height - 12 - 16 * number), line, size, SOFT, width - 2 * MARGIN)
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")
    return path


def _note(answers: Sequence[tuple[str | Path, Hits]]) -> str | None:
    texts = [str(query) for query, _ in answers]
    texts += [str(hit.get("text") or "") for _, hits in answers for hit in hits]
    if not any(map(unwritable, texts)):
        return None
    return f"{MISSING}: in no font of this machine ({install_command('demo')} brings Chinese ones)"


def _content(query: str | Path, hits: Hits) -> int:
    """Height of a row's pictures with what stands under them."""
    return THUMB + CAPTION if hits or isinstance(query, Path) else 30


def _row(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    top: int,
    query: str | Path,
    hits: Hits,
    right: set[str],
    width: int,
) -> None:
    """One query: its words or picture, and below what it found."""
    name = query.name if isinstance(query, Path) else query
    pen.rectangle(_scaled(MARGIN, top + 8, MARGIN + 3, top + 32), fill=ACCENT)
    _write(pen, (MARGIN + 13, top + 27), name, 18, INK, width - 2 * MARGIN - 13)
    left = MARGIN
    if isinstance(query, Path):
        _picture(sheet, pen, left, top + HEAD, str(query), ACCENT, 2)
        _write(pen, (left, top + HEAD + THUMB + 17), "asked with", 11, SOFT, THUMB)
        line = left + THUMB + GAP
        pen.line(_scaled(line, top + HEAD, line, top + HEAD + THUMB), fill=FAINT, width=SCALE)
        left += THUMB + 2 * GAP
    if not hits:
        _write(pen, (left, top + HEAD + 20), "nothing found", 13, SOFT, width)
    for place, hit in enumerate(hits):
        good = str(hit["id"]) in right
        x = left + place * (THUMB + GAP)
        _picture(
            sheet,
            pen,
            x,
            top + HEAD,
            hit.get("path"),
            RIGHT if good else FAINT,
            3 if good else 1,
            outside=bool(hit.get("outside")),
        )
        _caption(pen, x, top + HEAD + THUMB, place + 1, hit, good)


def _picture(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    left: int,
    top: int,
    path: str | None,
    frame: str,
    thickness: int,
    *,
    outside: bool = False,
) -> None:
    """A thumbnail on a card with rounded corners; none of what lies outside the index's roots."""
    side = THUMB * SCALE
    inner = side - 10 * SCALE
    card = Image.new("RGB", (side, side), CARD)
    try:
        if path is None:
            raise DataError("no picture")
        if outside:
            raise DataError("outside the roots")
        thumbnail = Image.fromarray(decode_to_show(read_regular(path), name=str(path)))
        scale = min(inner / thumbnail.width, inner / thumbnail.height)
        size = (max(1, round(thumbnail.width * scale)), max(1, round(thumbnail.height * scale)))
        thumbnail = thumbnail.resize(size, Image.Resampling.LANCZOS)
        card.paste(thumbnail, ((side - size[0]) // 2, (side - size[1]) // 2))
    except DataError:  # a picture that moved since is no reason to lose the sheet
        words = "no picture" if path is None else "outside" if outside else "picture gone"
        _write(ImageDraw.Draw(card), (14, THUMB / 2 + 4), words, 12, SOFT, THUMB - 20)
    mask = Image.new("L", (side, side), 0)
    box = (0, 0, side - 1, side - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, 8 * SCALE, fill=255)
    sheet.paste(card, (left * SCALE, top * SCALE), mask)
    outline = _scaled(left, top, left + THUMB, top + THUMB)
    pen.rounded_rectangle(outline, 8 * SCALE, outline=frame, width=thickness * SCALE)


def _caption(
    pen: ImageDraw.ImageDraw, left: int, top: int, rank: int, hit: Mapping[str, Any], good: bool
) -> None:
    """Rank, score as figure and bar, and up to two lines of text."""
    _write(pen, (left, top + 16), f"{rank}", 11, RIGHT if good else SOFT, THUMB)
    if hit["score"] is not None:
        _score(pen, left, top, float(hit["score"]), good)
    text = str(hit.get("text") or hit["id"])
    small = Script(12 * SCALE)
    for number, line in enumerate(small.wrapped(text, THUMB * SCALE, 2)):
        small.draw(pen, (left * SCALE, (top + 33 + 16 * number) * SCALE), line, INK)


def _score(pen: ImageDraw.ImageDraw, left: int, top: int, score: float, good: bool) -> None:
    """As a figure and as a bar."""
    told = f"{score:.2f}".replace("-", "\N{MINUS SIGN}")
    script = Script(11 * SCALE)
    end = left + THUMB
    script.draw(pen, (end * SCALE - script.width(told), (top + 16) * SCALE), told, SOFT)
    bar = (left + 16, end - 36)
    pen.rectangle(_scaled(bar[0], top + 11, bar[1], top + 13), fill=FAINT)
    filled = bar[0] + (bar[1] - bar[0]) * min(1.0, max(0.0, score))
    pen.rectangle(_scaled(bar[0], top + 11, filled, top + 13), fill=RIGHT if good else ACCENT)


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[Length, Length],
    text: str,
    size: int,
    colour: str,
    width: Length,
) -> None:
    script = Script(size * SCALE)
    fitted = script.fitted(text, width * SCALE)
    script.draw(pen, (place[0] * SCALE, place[1] * SCALE), fitted, colour)


def _scaled(*lengths: Length) -> tuple[Length, ...]:
    return tuple(length * SCALE for length in lengths)
