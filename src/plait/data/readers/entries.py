"""One JSON object a picture, which it names or holds: ``ann/1.json`` of ``{image, caption}``.

Each file is a row of one table. Files beside pictures that they do not name are
`plait.data.readers.sidecars`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plait.core.errors import DataError
from plait.data.base.sample import BadRow
from plait.data.readers import documents
from plait.data.readers.columns import plan
from plait.data.readers.files import Finder
from plait.data.readers.records import row_of
from plait.data.readers.rows import Found, Rows

_EXAMPLES = 20  # files whose keys tell what is what


def is_entry(document: Any, path: Path) -> bool:
    """Whether a JSON document is one row: it has keys of a picture and of a text."""
    if not isinstance(document, dict):
        return False
    try:
        plan(list(document), {}, path, [document])
    except DataError:
        return False
    return True


def read(found: Found) -> Rows:
    """One row a file."""
    first = [entry for path in found.files[:_EXAMPLES] if isinstance(entry := _entry(path), dict)]
    keys = list(dict.fromkeys(key for entry in first for key in entry))
    chosen = plan(keys, found.columns, found.files[0], first)
    found.notes.append(f"{len(found.files)} JSON files: {chosen.sentence}")
    finders: dict[Path, Finder] = {}
    for path in found.files:
        entry = _entry(path)
        if isinstance(entry, BadRow):
            yield entry
            continue
        if path.parent not in finders:
            finders[path.parent] = documents.finder_of(path, found)
        finder, split = finders[path.parent], found.splits.get(path)
        yield row_of(entry, chosen, finder, path, 1, split)


def _entry(path: Path) -> dict[str, Any] | BadRow:
    try:
        entry = documents.load(path)
    except DataError as error:
        return BadRow(str(path), error.row, error.problem, "bad-json")
    if isinstance(entry, dict):
        return entry
    problem = f"must be a JSON object, not {type(entry).__name__}"
    return BadRow(str(path), None, problem, "wrong-type")
