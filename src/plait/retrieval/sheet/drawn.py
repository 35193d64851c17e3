"""Pictures that a model draws: made, ranked by an alignment model, and written as files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from plait.core.errors import UserError
from plait.core.files import replacing
from plait.core.media import FileRef
from plait.modalities.image.fast_decode import load_pixels
from plait.models.alignment.alignment import AlignmentModel
from plait.models.drawing.drawing import DrawingModel
from plait.retrieval.sheet.sheet import contact_sheet

A_ROW = 8  # pictures of a sheet
SHEET = "sheet.png"


@dataclass(frozen=True)
class Drawn:
    """A picture of a text.

    Attributes:
        number: which of those that were drawn, from 1.
        pixels: RGB.
        score: its cosine to the text, by the alignment model; None where none judged.
    """

    number: int
    pixels: UInt8[np.ndarray, "H W 3"]
    score: float | None = None


def draw_pictures(
    model: DrawingModel,
    text: str,
    n: int = 1,
    *,
    candidates: int | None = None,
    judge: AlignmentModel | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    guidance: float = 1.0,
    prime: Path | None = None,
    prime_rows: int | None = None,
    seed: int = 0,
) -> list[Drawn]:
    """Draws a text; with a judge the best come first.

    Args:
        model: that draws.
        text: of all pictures.
        n: how many.
        candidates: so many are drawn, of which the judge keeps ``n``; default ``n``.
        judge: orders the pictures by their cosine to the text.
        temperature: 0 for the likeliest codes, 1 for the model's own probabilities.
        top_k: only so many codes are eligible for a cell.
        guidance: above 1 follows the text more closely.
        prime: a picture whose upper rows are kept.
        prime_rows: how many rows of codes those are; default half.
        seed: of the choice of codes; picture 3 of 8 is picture 3 of 20.

    Raises:
        UserError: an empty text, no picture wanted, candidates without a judge or fewer than ``n``.
        ModelError: a setting out of range.
        DataError: a picture that cannot be used.
    """
    if not text.strip():
        raise UserError("there is nothing to draw: the text is empty")
    if n < 1:
        raise UserError(f"n must be at least 1, not {n}")
    if candidates is not None and judge is None:
        raise UserError("candidates are chosen by an alignment model: name one with --rerank RUN")
    if candidates is not None and candidates < n:
        raise UserError(f"{candidates} candidates are fewer than the {n} pictures wanted")
    if prime_rows is not None and prime is None:
        raise UserError("prime_rows needs prime, the picture whose rows are kept")
    given = None
    if prime is not None:
        given = torch.as_tensor(load_pixels([FileRef(prime)], model.pixels)[0])
    drawn = model.draw(
        [text],
        candidates or n,
        temperature=temperature,
        top_k=top_k,
        guidance=guidance,
        prime=given,
        prime_rows=prime_rows,
        generator=torch.Generator().manual_seed(seed),
    )
    arrays = drawn[0].permute(0, 2, 3, 1).cpu().contiguous().numpy()
    if judge is None:
        return [Drawn(number, pixels) for number, pixels in enumerate(arrays, 1)]
    scores = judge.similarity(list(arrays), [text])[:, 0]
    order = np.argsort(-scores, kind="stable")[:n]
    return [Drawn(int(i) + 1, arrays[i], round(float(scores[i]), 6)) for i in order]


def check_free(out: Path) -> None:
    """Sees that pictures can be written there.

    Raises:
        UserError: something is there already, or it is a file of another kind than PNG.
    """
    if out.suffix and out.suffix.lower() != ".png" and not out.is_dir():
        raise UserError(
            f"{out}: pictures are written as PNG; let the name end in .png, or be a folder"
        )
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise UserError(f"{out} exists; plait does not overwrite it: name another file or folder")


def write_drawn(drawn: Sequence[Drawn], text: str, out: Path) -> list[dict[str, Any]]:
    """Writes a contact sheet, or a folder with one and every picture.

    Args:
        drawn: in the order of the sheet.
        text: its title.
        out: a name that ends in ``.png``, or a folder.

    Returns:
        For each picture ``number``, ``score`` and ``path`` (None in a sheet alone).

    Raises:
        UserError: see `check_free`.
    """
    check_free(out)
    if out.suffix.lower() == ".png" and not out.is_dir():
        with tempfile.TemporaryDirectory(prefix="plait-") as scratch:
            _sheet(drawn, text, Path(scratch), out)
        return [{"number": one.number, "score": one.score, "path": None} for one in drawn]
    out.mkdir(parents=True, exist_ok=True)
    paths = _sheet(drawn, text, out, out / SHEET)
    return [
        {"number": one.number, "score": one.score, "path": str(path)}
        for one, path in zip(drawn, paths, strict=True)
    ]


def _sheet(drawn: Sequence[Drawn], text: str, folder: Path, path: Path) -> list[Path]:
    """Writes every picture into ``folder`` and the sheet to ``path``."""
    hits, paths = [], []
    for place, one in enumerate(drawn, 1):
        file = folder / f"{place:02d}.png"
        with replacing(file) as temporary:
            Image.fromarray(one.pixels).save(temporary, "PNG")
        paths.append(file)
        hits.append(
            {"id": file.name, "path": str(file), "score": one.score, "text": f"no. {one.number}"}
        )
    rows = [(text, hits[start : start + A_ROW]) for start in range(0, len(hits), A_ROW)]
    contact_sheet(rows, path)
    return paths
