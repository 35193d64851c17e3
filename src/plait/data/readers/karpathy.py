"""Karpathy's split files: ``images[{filepath, filename, split, sentences[{raw}]}]``.

``restval`` joins train.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from plait.core.media import FileRef
from plait.data.readers import documents
from plait.data.readers.cells import file_key
from plait.data.readers.files import Finder
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_split, clean_texts

_FIELDS = frozenset(
    ["filepath", "filename", "split", "sentences", "sentids", "group", "sample_id", "labels"]
)


def read(found: Found) -> Rows:
    """One row a sentence."""
    for path in found.files:
        finder = documents.finder_of(path, found)
        images = documents.entries(documents.load(path), "images", path)
        for number, image in enumerate(images):
            yield from _rows(path, number, image, finder, found)


def _rows(path: Path, number: int, image: Any, finder: Finder, found: Found) -> Rows:
    row = Row(str(path), f"images[{number}]", split=found.splits.get(path))
    try:
        sentences = documents.required(image, "sentences", (list,), "its captions")
        ref = _find(image, finder)
        row.image, row.name, row.key = ref, ref.name, file_key(ref)
        row.split = clean_split(image.get("split")) or row.split
        row.group = documents.optional(image, "group")
        row.id = documents.optional(image, "sample_id")
        labels = image.get("labels")
        row.labels = labels if isinstance(labels, dict) else {}
        row.meta = {name: value for name, value in image.items() if name not in _FIELDS}
        if not sentences:
            raise Bad("empty-text", "has no sentences")
    except Bad as bad:
        yield row.bad(bad.kind, bad.problem)
        return
    for which, sentence in enumerate(sentences):
        own = replace(row, row=f"images[{number}].sentences[{which}]")
        try:
            raw = documents.required(sentence, "raw", (str,), "the caption")
            own.texts = clean_texts([raw])
            language = documents.optional(sentence, "language")
            own.languages = (language,) if language else ()
        except Bad as bad:
            yield own.bad(bad.kind, bad.problem)
            continue
        yield own


def _find(image: dict[str, Any], finder: Finder) -> FileRef:
    name = documents.named(image, "filename", "its picture")
    folder = documents.optional(image, "filepath")
    if folder:
        try:
            return finder.find(f"{folder}/{name}")
        except Bad as bad:
            if bad.kind != "missing-file":
                raise
    return finder.find(name)  # many copies of the set keep all pictures in one folder
