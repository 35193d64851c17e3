"""From samples and their vectors to the rows of an index."""

from __future__ import annotations

import copy
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from plait.core.files import RealPaths, digest, is_below, replacing
from plait.core.media import MediaRef
from plait.core.modality import IMAGE, TEXT
from plait.core.notebook import MOST_LINES, cut, strip_html
from plait.data.base.display import picture_url
from plait.data.base.sample import Sample
from plait.modalities.image.decode import MAX_PIXELS, decode_to_show
from plait.retrieval.store.store import Row

THUMBNAILS = "thumbnails"
_SIDE = 256  # pixels of a stored thumbnail's longer side


class Hits(list[dict[str, Any]]):
    """What was found, told in a line each; a notebook shows the pictures too.

    Args:
        found: the hits, best first.
        gone: how many nearer pictures were passed over, as they are no longer on the disk.
    """

    def __init__(self, found: Iterable[dict[str, Any]] = (), *, gone: int = 0) -> None:
        super().__init__(found)
        self.gone = gone

    def __repr__(self) -> str:
        lines = [f"{hit['rank']:3d}  {hit['score']:.3f}  {_told(hit)}" for hit in self[:MOST_LINES]]
        more = len(self) - MOST_LINES
        return "\n".join([f"Hits ({len(self)})", *lines, *([f"  and {more} more"] * (more > 0))])

    def _repr_html_(self) -> str:
        shown = [
            (
                None if hit["outside"] else picture_url(hit["path"]),
                f"{hit['score']:.3f} {_told(hit)}",
            )
            for hit in self[:MOST_LINES]
        ]
        return strip_html(shown, len(self) - MOST_LINES)


def _told(hit: Mapping[str, Any]) -> str:
    return cut(str(hit["text"] or hit["id"]))


def image_row(
    sample: Sample, split: str, vector: Float[np.ndarray, " D"], folder: Path, real: RealPaths
) -> Row:
    """The row of a picture.

    A picture without a file of its own (in a shard, a table, memory) leaves a thumbnail in the
    index, so that results can be looked at later.
    """
    assert sample.image is not None
    metadata = _metadata(sample, split)
    path = sample.image.path
    if path is None:
        metadata["source"] = sample.image.name
        shown = _thumbnail(sample.image, sample.id, folder)
    else:
        shown = real(path)
    return Row(sample.id, vector, IMAGE, sample.texts, shown, None, metadata)


def text_rows(
    sample: Sample, split: str, vectors: Sequence[Float[np.ndarray, " D"]], path: str | None
) -> Iterator[Row]:
    """The rows of a sample's texts; ``path`` shows its picture."""
    for number, (text, vector) in enumerate(zip(sample.texts, vectors, strict=True)):
        language = sample.languages[number] if sample.languages else None
        metadata = _metadata(sample, split)
        yield Row(sample.id, vector, TEXT, (text,), path, language, metadata, number)


def _metadata(sample: Sample, split: str) -> dict[str, Any]:
    """The sample's own columns, with its split and group where they don't stand there already."""
    found: dict[str, Any] = {"split": split}
    if sample.group is not None:
        found["group"] = sample.group
    found |= {str(key): _plain(value) for key, value in {**sample.labels, **sample.meta}.items()}
    return found


def _plain(value: Any) -> Any:
    """JSON; what JSON has no word for becomes text, and NaN becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value)


def _thumbnail(ref: MediaRef, name: str, folder: Path) -> str:
    """Writes a small JPEG and returns its path seen from the index."""
    code = digest(name)
    relative = Path(THUMBNAILS) / code[:2] / f"{code}.jpg"
    with replacing(folder / relative) as temporary:
        temporary.write_bytes(small_jpeg(ref.read(), ref.name))
    return relative.as_posix()


def small_jpeg(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, side: int = _SIDE) -> bytes:
    """The picture in a file's bytes, at most ``side`` pixels wide and high.

    Raises:
        DataError: there is no picture in them.
    """
    picture = Image.fromarray(decode_to_show(data, name=name, max_pixels=max_pixels))
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def remove_thumbnails(rows: Sequence[Row], folder: Path) -> None:
    """Deletes the thumbnails that only these rows show."""
    for row in rows:
        if row.path is not None and row.path.startswith(f"{THUMBNAILS}/"):
            path = folder / row.path
            if path.is_file() and is_below(path.parent, (folder / THUMBNAILS,)):
                path.unlink()


def result(
    row: Row, score: float, rank: int, folder: Path, roots: Sequence[str] | None
) -> dict[str, Any]:
    """A hit as JSON: ``rank, id, key, score, path, outside, text, texts, modality, language, metadata``.

    ``key`` names the row; ``text`` is the first text, None without any; ``path`` can be opened from anywhere. ``outside``
    says that the picture lies outside the index's folder and ``roots`` (None: nothing does), so
    that nothing may show it.
    """
    path = row.path
    if path is not None and not Path(path).is_absolute():
        path = os.path.realpath(folder / path)
    outside = path is not None and roots is not None and not is_below(path, (folder, *roots))
    return {
        "rank": rank,
        "id": row.id,
        "key": row.key,
        "score": round(score, 6),
        "path": path,
        "outside": outside,
        "text": row.texts[0] if row.texts else None,
        "texts": list(row.texts),
        "modality": row.modality,
        "language": row.language,
        "metadata": copy.deepcopy(dict(row.metadata)),
    }
