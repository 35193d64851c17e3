"""COCO captions: ``images[{id, file_name}]`` and ``annotations[{id, image_id, caption}]``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from plait.core.errors import shown
from plait.data.readers import documents
from plait.data.readers.cells import file_key
from plait.data.readers.files import Finder
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_split, clean_texts

_IMAGE_FIELDS = frozenset(["file_name", "split", "group", "sample_id", "labels"])
_BULKY = frozenset(["coco_url", "flickr_url", "date_captured", "license", "width", "height"])


def read(found: Found) -> Rows:
    """One row a caption, in the order of the pictures."""
    for path in found.files:
        document = documents.load(path)
        images = documents.entries(document, "images", path)
        annotations = documents.entries(document, "annotations", path)
        yield from _rows(path, images, annotations, found)


def _rows(path: Path, images: list[Any], annotations: list[Any], found: Found) -> Rows:
    finder = documents.finder_of(path, found)
    captions: dict[Any, list[int]] = defaultdict(list)
    for number, annotation in enumerate(annotations):
        try:
            captions[documents.required(annotation, "image_id", (int, str), "its picture")].append(
                number
            )
        except Bad as bad:
            yield Row(str(path), f"annotations[{number}]").bad(bad.kind, bad.problem)
    seen: set[Any] = set()
    for number, image in enumerate(images):
        first = Row(str(path), f"images[{number}]", split=found.splits.get(path))
        try:
            id = documents.required(image, "id", (int, str), "which annotations name")
            if id in seen:
                raise Bad("id-clash", f"id {shown(id)} is there twice")
            seen.add(id)
            _picture(first, image, finder)
            if not captions.get(id):
                raise Bad("empty-text", f"no annotation has a caption for image_id {shown(id)}")
        except Bad as bad:
            yield first.bad(bad.kind, bad.problem)
            continue
        for which in captions[id]:
            yield from _caption(first, which, annotations[which])
    for id in captions.keys() - seen:
        for which in captions[id]:
            problem = f"image_id {shown(id)} is not among the images"
            yield Row(str(path), f"annotations[{which}]").bad("orphan-caption", problem)


def _picture(row: Row, image: dict[str, Any], finder: Finder) -> None:
    ref = finder.find(documents.named(image, "file_name", "its picture"))
    row.image, row.name, row.key = ref, ref.name, file_key(ref)
    row.split = clean_split(image.get("split")) or row.split
    row.group, row.id = documents.optional(image, "group"), documents.optional(image, "sample_id")
    labels = image.get("labels")
    row.labels = labels if isinstance(labels, dict) else {}
    row.meta = {
        ("image_id" if name == "id" else name): value
        for name, value in image.items()
        if name not in _IMAGE_FIELDS and name not in _BULKY
    }


def _caption(first: Row, number: int, annotation: dict[str, Any]) -> Rows:
    row = Row(
        first.path,
        f"annotations[{number}]",
        name=first.name,
        key=first.key,
        id=first.id,
        image=first.image,
        split=first.split,
        group=first.group,
        labels=first.labels,
        meta=first.meta,
    )
    try:
        row.texts = clean_texts([annotation.get("caption")])
        language = documents.optional(annotation, "language")
        row.languages = (language,) if language else ()
    except Bad as bad:
        yield row.bad(bad.kind, bad.problem)
        return
    yield row
