"""Chinese-CLIP's form: ``train_imgs.tsv`` of id and base64, ``train_texts.jsonl`` of texts and ids.

A line of texts is ``{text_id, text, image_ids: [..]}``. Pictures stay in the file and are decoded
one by one.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plait.core.base64 import from_base64
from plait.core.errors import DataError, shown
from plait.core.files import regular
from plait.data.base.sample import BadRow
from plait.data.base.splits import splits_of_names
from plait.data.readers import documents
from plait.data.readers.files import MOST_TEXT
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_texts
from plait.data.readers.table import parse

_PICTURES = re.compile(r"^(?P<base>(?:.*[/_])?[^/]*?)_imgs\.tsv$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Base64Ref:
    """A picture of ``length`` base64 characters from ``offset`` of a text file."""

    file: Path
    offset: int
    length: int
    name: str

    @property
    def path(self) -> Path | None:
        """None: it is no file of its own."""
        return None

    @property
    def size(self) -> int:
        """Bytes of the picture, up to the padding."""
        return self.length * 3 // 4

    def read(self) -> bytes:
        """The encoded bytes. Raises `DataError` when they are gone, or no base64."""
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                return from_base64(file.read(self.length).decode("ascii", "replace"))
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", path=self.file) from error
        except ValueError as error:
            raise DataError(f"the picture is no base64: {error}", path=self.name) from None


def texts_of(name: str) -> str | None:
    """The file of texts that belongs to a file of pictures; None for another file."""
    match = _PICTURES.match(name)
    return None if match is None else f"{match['base']}_texts.jsonl"


def find(root: Path, names: Iterable[str]) -> Found | None:
    """The pairs of files in a folder, or None."""
    every = set(names)
    texts = [text for name in sorted(every) if (text := texts_of(name)) in every and text]
    if not texts:
        return None
    stated = splits_of_names(texts)
    return Found(
        "chinese-clip",
        root,
        tuple(root / name for name in texts),
        f"base64 pictures in TSV beside texts, as Chinese-CLIP has them: {', '.join(texts[:3])}",
        splits={root / name: stated[name] for name in texts},
    )


def read(found: Found) -> Rows:
    """One row a picture, with all its texts; then the texts of pictures that are not there."""
    for path in found.files:
        pictures = path.with_name(path.name[: -len("_texts.jsonl")] + "_imgs.tsv")
        for own in (pictures, path):
            found.leave.check(own, [found.folder])
        found.read.add(pictures)
        texts: dict[str, list[tuple[int, str]]] = defaultdict(list)
        yield from _texts(path, texts)
        for number, id, ref in _pictures(pictures):
            if isinstance(ref, BadRow):
                yield ref
                continue
            row = Row(str(pictures), number, name=id, origin=path.name.split("_")[0], image=ref)
            row.key, row.split = (str(pictures), id), found.splits.get(path)
            row.texts = tuple(text for _, text in texts.pop(id, ()))
            yield row if row.texts else row.bad("empty-text", f"no text names picture {shown(id)}")
        for id, lost in texts.items():
            problem = f"there is no picture {shown(id)} in {pictures.name}"
            yield from (BadRow(str(path), number, problem, "missing-file") for number, _ in lost)


def _texts(path: Path, texts: dict[str, list[tuple[int, str]]]) -> Iterator[BadRow]:
    """Fills ``texts`` by picture; yields the lines that give none."""
    for item in parse(path):
        if isinstance(item, BadRow):
            yield item
            continue
        number, entry = item
        try:
            (text,) = clean_texts([documents.required(entry, "text", (str,), "the text")])
            ids = documents.required(entry, "image_ids", (list,), "the pictures it belongs to")
            if not ids:
                raise Bad("missing-file", "the text belongs to no picture: 'image_ids' is empty")
        except Bad as bad:
            yield BadRow(str(path), number, bad.problem, bad.kind)
            continue
        for id in ids:
            texts[id if isinstance(id, str) else json.dumps(id)].append((number, text))


def _pictures(path: Path) -> Iterator[tuple[int, str, Base64Ref | BadRow]]:
    """(line, id, place) of each picture."""
    regular(path, None)
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(4 * MOST_TEXT), b""), 1):
            head, tab, digits = line.partition(b"\t")
            id = head.decode("utf-8", "replace").strip()
            if tab and digits.strip():
                name = f"{path.name}!{id}"
                ref = Base64Ref(path, offset + len(head) + 1, len(digits.rstrip()), name)
                yield number, id, ref
            elif line.strip():
                problem = "must be a picture's id, a tab and its base64"
                yield number, id, BadRow(str(path), number, problem, "wrong-type")
            offset += len(line)
