"""Pictures with a file of texts each: ``.txt`` and ``.caption`` of the LoRA trainers, ``.json``.

Beside ``a.jpg`` lie ``a.txt`` or ``a.jpg.txt``, or the two in folders of their own:
``images/a.jpg`` and ``captions/a.txt``. A ``.txt`` or ``.caption`` is the text as it stands;
a ``.json`` names its texts as a table's columns do, and whatever else it states goes into ``meta``
(img2dataset writes both). Letter case of the endings does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from plait.core.errors import DataError
from plait.core.files import parse_json, read_regular
from plait.data.readers.cells import listed
from plait.data.readers.columns import text_columns
from plait.data.readers.files import MOST_TEXT, check_text, decoded, is_image, stem
from plait.data.readers.leave import Leave
from plait.data.readers.rows import Bad, Row, clean_texts

ENDINGS = (".txt", ".caption", ".json")
_OF_TEXTS = frozenset(["captions", "caption", "texts", "text", "txt", "prompts", "descriptions"])
_OF_PICTURES = frozenset(["images", "image", "imgs", "img", "pictures", "photos", "jpg", "png"])
_PROBED = 5  # of the JSON files beside pictures, to see whether they hold texts at all


def sidecars(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """For each picture the files of texts beside it, by their endings, in the order of preference."""
    every = list(names)
    beside: dict[tuple[str, str], str] = {}
    for name in every:
        start, dot, ending = name.rpartition(".")
        if f"{dot}{ending.lower()}" in ENDINGS:
            beside[start, f".{ending.lower()}"] = name
    if beside:
        apart = {
            (_without(start, _OF_TEXTS), ending): file for (start, ending), file in beside.items()
        }
        beside |= {key: file for key, file in apart.items() if key not in beside}
    found = {}
    for name in every:
        if beside and is_image(name):
            starts = (name, stem(name), *_bare(name))
            own = {
                ending: file
                for ending in ENDINGS
                for start in starts
                if (file := beside.get((start, ending))) is not None
            }
            if own:
                found[name] = own
    return found


def _without(path: str, folders: frozenset[str]) -> str:
    """A path without its first folder of one of these names."""
    parts = path.split("/")
    for place, part in enumerate(parts[:-1]):
        if part.lower() in folders:
            return "/".join(parts[:place] + parts[place + 1 :])
    return path


def _bare(name: str) -> Iterator[str]:
    """The place of a picture without its folder of pictures, where a text of another folder is."""
    bare = _without(stem(name), _OF_PICTURES)
    if bare != stem(name):
        yield bare


def telling(root: Path, beside: dict[str, dict[str, str]], leave: Leave) -> int:
    """How many pictures have a text beside them; JSON counts where some of the first hold texts."""
    plain = sum(len(own.keys() - {".json"}) > 0 for own in beside.values())
    only_json = [(name, own) for name, own in beside.items() if own.keys() == {".json"}]
    held = any(
        leave.permits(root / own[".json"], [root]) and _texts_of(root / own[".json"], name)
        for name, own in only_json[:_PROBED]
    )
    return plain + (len(only_json) if held else 0)


def used(own: dict[str, str]) -> list[str]:
    """Which of the files beside a picture are read: of plain texts one, and its JSON."""
    plain = next((own[ending] for ending in ENDINGS[:2] if ending in own), None)
    return [file for file in (plain, own.get(".json")) if file is not None]


def fill(row: Row, root: Path, own: dict[str, str]) -> None:
    """Gives a row the texts and the metadata beside its picture.

    Raises:
        Bad: there is no text, or it cannot be read.
    """
    entry = _entry(root / own[".json"]) if ".json" in own else {}
    columns = text_columns(tuple(entry))
    texts = _of_entry(entry, row.name)
    plain = next((own[ending] for ending in ENDINGS[:2] if ending in own), None)
    if plain is not None:
        texts = [_text(root / plain)]
    elif not texts:
        raise Bad("empty-text", f"{own['.json']} holds no text such as a caption")
    row.texts = clean_texts(texts)
    row.meta = {name: value for name, value in entry.items() if name not in dict(columns)}


def _texts_of(path: Path, picture: str) -> list[Any]:
    try:
        return _of_entry(_entry(path), picture)
    except Bad:
        return []


def _of_entry(entry: dict[str, Any], picture: str) -> list[Any]:
    """The texts that a JSON file states; the name of its picture (Google's ``title``) is none."""
    cells = [entry[column] for column, _ in text_columns(tuple(entry))]
    own = (picture.rsplit("/", 1)[-1], stem(picture).rsplit("/", 1)[-1])
    return [text for cell in cells for text in listed(cell) if text and text not in own]


def _entry(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(_text(path))
    except ValueError as error:
        raise Bad("bad-json", f"{path.name} is no valid JSON: {error}") from None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, str) or (
        isinstance(value, list) and value and all(isinstance(one, str) for one in value)
    ):
        return {"text": value}
    if not isinstance(value, dict):
        raise Bad("wrong-type", f"{path.name} must be a JSON object, not {type(value).__name__}")
    return value


def _text(path: Path) -> str:
    try:
        text, valid = decoded(read_regular(path, most_bytes=MOST_TEXT))
    except DataError as error:
        raise Bad("unreadable-file", f"{path.name} {error.problem}") from None
    except UnicodeDecodeError as error:
        raise Bad("bad-encoding", f"{path.name} is not valid UTF-16: {error.reason}") from None
    if not valid:
        check_text(text)
    return text
