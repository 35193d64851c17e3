"""What a report shows, read from a run folder; nothing there is required but the folder."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from plait.core.errors import DataError
from plait.core.files import BadJson, parse_json, read_json, write_json
from plait.core.media import MediaRef
from plait.evaluation.evaluate.gallery import Gallery
from plait.evaluation.report.examples import (
    Found,
    Search,
    picture_searches,
    text_searches,
    worst_mistakes,
)
from plait.modalities.image.decode import decode_to_show

EXAMPLES = "examples.json"
SIDE = 160  # pixels of a thumbnail's longer side: 80 on screens with two dots a pixel, or more


@dataclass(frozen=True)
class ReportData:
    """The contents of a run folder, as far as they are there.

    Attributes:
        run: the folder.
        recipe: ``recipe.yaml`` as text.
        result: ``report.json``.
        records: ``metrics.jsonl``.
        data: ``data.json``.
        versions: ``versions.json``.
        examples: ``examples.json``: lists of searches under ``searches``, ``pictures``, ``mistakes``.
        sheet: ``sheet.png``, made smaller, as a data URL.
        kind: of the model, by ``model.json``; "" without one.
    """

    run: Path
    recipe: str
    result: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any]
    versions: Mapping[str, Any]
    examples: Mapping[str, Any]
    sheet: str | None
    kind: str = ""


def read_run(run: Path) -> ReportData:
    """Reads what a report can show.

    Raises:
        DataError: no folder, or a file in it that is damaged.
    """
    if not run.is_dir():
        raise DataError("there is no such run folder", path=run)
    recipe = run / "recipe.yaml"
    sheet = run / "sheet.png"
    return ReportData(
        run=run,
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        result=_json(run / "report.json"),
        records=_records(run / "metrics.jsonl"),
        data=_json(run / "data.json"),
        versions=_json(run / "versions.json"),
        examples=_json(run / EXAMPLES),
        sheet=_half(sheet) if sheet.is_file() else None,
        kind=str(_json(run / "model.json").get("kind", "")),
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = read_json(path)
    except BadJson as error:
        raise DataError(f"is damaged: it {error.problem}", path=path) from error
    return found


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(parse_json(line))
        except ValueError as error:
            raise DataError(f"is damaged: {error}", path=path, row=number) from error
    return found


def _half(path: Path) -> str:
    """Contact sheets are drawn for print; half their size is sharp on a page."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    return _data_url(picture, "PNG")


def _data_url(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    if kind == "PNG":
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(buffer, kind, quality=82)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{code}"


def thumbnail(ref: MediaRef) -> str | None:
    """A small JPEG as a data URL; None for a picture that cannot be read any more."""
    try:
        picture = Image.fromarray(decode_to_show(ref.read(), name=ref.name))
    except DataError:
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _data_url(picture, "JPEG")


def write_examples(run: Path, gallery: Gallery, *, seed: int = 0) -> None:
    """Writes searches worth looking at, with their thumbnails, into ``examples.json``."""
    write_json(
        run / EXAMPLES,
        {
            "searches": [_search(s) for s in text_searches(gallery, seed=seed)],
            "pictures": [_search(s) for s in picture_searches(gallery, seed=seed)],
            "mistakes": [_search(s) for s in worst_mistakes(gallery)],
        },
    )


def _search(search: Search) -> dict[str, Any]:
    return {
        "query": search.query,
        "picture": None if search.picture is None else thumbnail(search.picture),
        "results": [_found(each) for each in search.results],
        "answer": _found(search.answer),
    }


def _found(found: Found) -> dict[str, Any]:
    return {
        "id": found.id,
        "text": found.text,
        "score": round(found.score, 4),
        "rank": found.rank,
        "right": found.right,
        "picture": None if found.picture is None else thumbnail(found.picture),
    }
