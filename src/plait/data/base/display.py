"""Samples as notebooks show them: a small picture, and what is known of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from plait.core.errors import PlaitError
from plait.core.files import read_regular
from plait.core.notebook import strip_html, table_html
from plait.modalities.image.decode import decode_to_show

if TYPE_CHECKING:
    from plait.core.media import MediaRef
    from plait.data.base.sample import Sample

MOST_SHOWN = 6
_SIDE = 128  # pixels


def picture_url(source: MediaRef | str | Path | None) -> str | None:
    """A data URL of a small JPEG; None where there is no picture that can be read."""
    if source is None:
        return None
    try:
        data = read_regular(source) if isinstance(source, str | Path) else source.read()
        picture = Image.fromarray(decode_to_show(data, name=""))
    except (PlaitError, OSError):
        return None
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def sample_html(sample: Sample) -> str:
    """The picture and a table of what is known."""
    known = {"id": sample.id, "texts": " | ".join(sample.texts), "split": sample.split}
    known |= {**sample.labels, **sample.meta}
    rows = [(str(name), str(value)[:500]) for name, value in known.items() if value]
    return strip_html([(picture_url(sample.image), "")]) + table_html(rows)


def samples_html(samples: Sequence[Sample], told: str) -> str:
    """A line, and the first pictures with their first texts."""
    shown = [
        (picture_url(one.image), one.texts[0] if one.texts else one.id)
        for one in samples[:MOST_SHOWN]
    ]
    return table_html([(told, "")]) + strip_html(shown, len(samples) - MOST_SHOWN)
