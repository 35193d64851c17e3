"""Flickr8k, both ways it is spread.

- ``name.jpg#0<TAB>caption``, with lists of the pictures of each split in files such as
  ``Flickr_8k.trainImages.txt``;
- a header ``image,caption`` and ``name.jpg,caption``, where captions hold commas: the name ends at
  the first comma after a picture's ending. Quoted fields are unquoted, over several lines too.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from plait.core.errors import DataError, shown
from plait.core.files import read_regular
from plait.data.base.splits import split_in_name
from plait.data.readers import documents
from plait.data.readers.cells import file_key, listed
from plait.data.readers.files import MOST_TEXT, check_text, decoded, is_image
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_texts
from plait.modalities.image.forms import DECODABLE

_MOST_BYTES = 128 << 20  # ten times Flickr30k
_FOLDERS = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset")  # the first is no slip
_ENDINGS = "|".join(sorted(DECODABLE, key=len, reverse=True))
_CSV = re.compile(rf'^(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<bare>.+?\.(?:{_ENDINGS})))\s*,', re.I)
_TOKEN = re.compile(r"^(?P<name>[^\t]+)#\d+\s*\t(?P<text>.*)$", re.DOTALL)


def read(found: Found) -> Rows:
    """One row a caption."""
    paths = [path for path in found.files if "lemma" not in path.name.lower()] or found.files
    for path in set(found.files) - set(paths):
        found.notes.append(f"{path.name}: lemmatised twin, not read")
    finder = documents.finder_of(paths[0], found)
    bases = dict.fromkeys([paths[0].parent, found.folder, paths[0].parent.parent])
    places = [base / name for base in bases for name in _FOLDERS if (base / name).is_dir()]
    finder.roots += places
    finder.own += [place for place in places if not place.is_symlink()]
    in_split = _split_lists(paths[0], found)
    for path in paths:
        for number, name, text in _pairs(path):
            row = Row(str(path), number, split=in_split.get(name) or found.splits.get(path))
            try:
                if text is None:
                    raise Bad("bad-csv", f"is no picture name, comma and caption: {shown(name)}")
                check_text(name + text)
                ref = finder.find(name)
                row.image, row.name, row.key = ref, ref.name, file_key(ref)
                row.texts = clean_texts(listed(text))
            except Bad as bad:
                yield row.bad(bad.kind, bad.problem)
                continue
            yield row
    for root in finder.used:
        if root not in bases:
            found.notes.append(f"pictures found in {root}")


def _pairs(path: Path) -> Iterator[tuple[int, str, str | None]]:
    """(line, picture, caption); caption None where a line cannot be divided."""
    try:
        text, _ = decoded(read_regular(path, most_bytes=_MOST_BYTES))
    except UnicodeDecodeError as error:
        raise DataError(f"is not valid UTF-16: {error.reason}", path=path) from error
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) == 1:
        lines = text.split("\r")  # Excel's "CSV (Macintosh)"
    head = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if _TOKEN.match(lines[head]):
        for number, line in enumerate(lines, 1):
            if line.strip():
                match = _TOKEN.match(line)
                yield (number, match["name"], match["text"]) if match else (number, line, None)
        return
    number = head + 1
    while number < len(lines):
        line, start = lines[number], number + 1
        number += 1
        if not line.strip():
            continue
        match = _CSV.match(line)
        if match is None:
            yield start, line, None
            continue
        caption = line[match.end() :]
        if caption.startswith('"'):
            caption, used = _joined(caption, lines[number:])
            number += used
        name = match["bare"] or match["quoted"].replace('""', '"')
        yield start, name, _unquoted(caption)


def _joined(caption: str, following: list[str]) -> tuple[str, int]:
    """A quoted caption with the lines it goes on over, unless one of those starts a new row."""
    joined = caption
    for used, line in enumerate(["", *following[:50]]):
        if used:
            if _CSV.match(line):
                break
            joined += "\n" + line
        if joined.count('"') % 2 == 0:
            return joined, used
    return caption, 0


def _unquoted(caption: str) -> str:
    """``"a ""b"", c"`` without its quotes; anything that is not one quoted field as it is."""
    stripped = caption.strip()
    if stripped[:1] == '"' and stripped[-1:] == '"':
        try:
            fields = next(csv.reader([stripped], strict=True))
        except csv.Error:
            return stripped  # a caption that starts and ends with a quotation
        if len(fields) == 1:
            return fields[0]
    return stripped


def _split_lists(path: Path, found: Found) -> dict[str, str]:
    """Picture name to split, from text files beside the captions that list pictures."""
    in_split: dict[str, str] = {}
    folders = dict.fromkeys([path.parent, found.folder])
    for file in sorted(file for folder in folders for file in folder.glob("*.txt")):
        split = split_in_name(file.stem)
        if split is None or file in found.files or file.is_symlink() or not file.is_file():
            continue
        names = [
            name.strip()
            for name in decoded(read_regular(file, most_bytes=MOST_TEXT))[0].split("\n")
        ]
        names = [name for name in names if name]
        if names and all(is_image(name) for name in names):
            in_split.update(dict.fromkeys(names, split))
            found.read.add(file)
            found.notes.append(f"{file.name}: {len(names)} pictures of split {split}")
    return in_split
