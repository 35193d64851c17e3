"""WebDataset shards: plain tars whose members of one key are one sample.

The key is the path up to the first dot of the file name; what follows is the field. Pictures
(``.jpg .png .webp`` ...) stay in the shard and are read by offset; ``.txt``, ``.json`` and ``.cls``
are read when the shard is opened.

A ``.txt`` is one text, unless every one of the first fifty has the same number of lines above one:
then each line is a text (notes say so). Photographs with dots in their names (``a.b.jpg`` with
``a.b.txt``) would all have the key ``a``; where every part before the last dot has a picture and a
text of its own, each part is a sample.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plait.core.errors import DataError
from plait.core.files import parse_json
from plait.core.media import TarRef
from plait.core.modality import AUDIO, SENSOR, VIDEO
from plait.data.base.sample import BadRow
from plait.data.base.splits import splits_of_names
from plait.data.readers import files, talk, tar
from plait.data.readers.cells import Embedded
from plait.data.readers.columns import Plan, plan, text_columns
from plait.data.readers.files import Finder, check_text, decoded
from plait.data.readers.records import row_of
from plait.data.readers.rows import Bad, Found, Row, Rows
from plait.modalities.image import forms

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]+)\}")
_MEDIA = (
    (AUDIO, files.AUDIO_SUFFIXES),
    (VIDEO, files.VIDEO_SUFFIXES),
    (SENSOR, files.SENSOR_SUFFIXES),
)


@dataclass(slots=True)
class _Group:
    """Members of one sample: key, and field to place in the shard."""

    key: str
    fields: dict[str, TarRef]


def expand(pattern: str) -> Found:
    """Shards of a pattern: ``{000..009}`` and ``{a,b}`` braces, ``*`` and ``?`` wildcards.

    Several patterns go with ``::`` between them, as open_clip writes them.

    Raises:
        DataError: a shard that the braces name is missing, or nothing matches.
    """
    names = [name for part in pattern.split("::") for name in _braces(part)]
    paths: list[Path] = []
    for name in names:
        matches = sorted(glob.glob(name)) if re.search(r"[*?\[]", name) else [name]  # noqa: PTH207
        paths += [Path(match) for match in matches]
    if not paths:
        raise DataError("no file matches this pattern", path=pattern)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(paths)} shards are missing", path=missing[0])
    stated = splits_of_names(path.name for path in paths)
    return Found(
        "webdataset",
        paths[0].parent,
        tuple(paths),
        f"{len(paths)} shards of a pattern",
        splits={path: stated[path.name] for path in paths},
    )


def _braces(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    if words is not None:
        parts = words.split(",")
    else:
        width = len(first)
        parts = [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
    for part in parts:
        yield from _braces(pattern[: match.start()] + part + pattern[match.end() :])


def read(found: Found) -> Rows:
    """Rows of every shard. A shard that ends early gives its whole samples, then a bad row."""
    groups = itertools.chain.from_iterable(_groups(path, found) for path in found.files)
    head = list(itertools.islice(groups, 50))
    lines = _lines_are_texts(head)
    bare = not any(_may_tell(group) for group in head if isinstance(group, _Group))
    if bare:
        found.notes.append("the shards hold pictures without texts")
    if lines:
        found.notes.append(f"each .txt has {lines} lines: each line is a text")
    plans: dict[tuple[str, ...], Plan] = {}
    seen: dict[tuple[Path, str], TarRef] = {}
    for item in itertools.chain(head, groups):
        if isinstance(item, BadRow):
            yield item
            continue
        row = _row(item, found, plans, split_lines=lines > 0)
        if bare and isinstance(row, BadRow) and row.bare is not None:
            row = row.bare
        if isinstance(row, Row) and not found.streaming:
            _tell_apart(row, seen)
        yield row


def _tell_apart(row: Row, seen: dict[tuple[Path, str], TarRef]) -> None:
    """Gives a key that repeats in its shard with another picture a sample of its own."""
    ref = row.image
    if not isinstance(ref, TarRef):
        return
    first = seen.setdefault((ref.tar, row.name), ref)
    if first is not ref and first.read() != ref.read():
        row.key = (str(ref.tar), ref.offset)


def _groups(path: Path, found: Found) -> Iterator[_Group | BadRow]:
    """Samples of a shard in the order of their first members.

    Only headers are read, so that members which lie apart (all pictures, then all texts) cost no
    more than adjacent ones.
    """
    last: dict[str, _Group] = {}
    groups: list[_Group] = []
    apart: set[str] = set()
    bad: BadRow | None = None
    before = ""
    try:
        for member, offset, size in tar.members(path):
            folder, slash, base = member.rpartition("/")
            if base.startswith(".") or "." not in base:
                continue  # as webdataset does; macOS adds ._ twins
            start, _, name = base.partition(".")
            name = name.lower()  # as webdataset does
            key = folder + slash + start
            group = last.get(key)
            if group is None or name in group.fields:
                group = last[key] = _Group(key, {})
                groups.append(group)
            elif key != before:
                apart.add(key)
            before = key
            group.fields[name] = TarRef(path, member, offset, size)
    except (tar.TarError, OSError) as error:
        problem = f"the shard cannot be read to its end ({error}): write or fetch it again"
        bad = BadRow(str(path), None, problem, "bad-tar")
    if apart:
        found.notes.append(
            f"{path.name}: members of {len(apart)} keys are not adjacent; they are read together, "
            "but other readers need them sorted (tar --sort=name)"
        )
    for group in groups:
        yield from _divided(group)
    if bad is not None:
        yield bad


def _divided(group: _Group) -> Iterator[_Group]:
    """One sample, or several where dots in file names cut their keys short."""
    parts: dict[str, dict[str, TarRef]] = {}
    for name, ref in group.fields.items():
        inner, _, ending = name.rpartition(".")
        parts.setdefault(inner, {})[ending] = ref
    whole = all(
        any(ending in forms.decoded() for ending in map(str.lower, fields))
        and ("txt" in fields or "json" in fields)
        for fields in parts.values()
    )
    if not whole:
        yield group
        return
    for inner, fields in parts.items():
        yield _Group(f"{group.key}.{inner}" if inner else group.key, fields)


def _lines_are_texts(head: list[_Group | BadRow]) -> int:
    texts = [
        ref.read().decode("utf-8", "replace").strip().splitlines()
        if ref.size <= files.MOST_TEXT
        else [""]
        for group in head
        if isinstance(group, _Group)
        for name, ref in group.fields.items()
        if name == "txt"
    ]
    counts = {len([line for line in lines if line.strip()]) for lines in texts}
    return min(counts) if len(counts) == 1 and len(texts) > 1 and min(counts) > 1 else 0


def _row(
    group: _Group, found: Found, plans: dict[tuple[str, ...], Plan], split_lines: bool
) -> Row | BadRow:
    shard = next(iter(group.fields.values())).tar
    try:
        record, mapping = _record(group, found, split_lines)
    except Bad as bad:
        return BadRow(str(shard), group.key, bad.problem, bad.kind)
    columns = tuple(record)
    if columns not in plans:
        wanted = {role: name for role, name in found.columns.items() if name in record}
        plans[columns] = plan(columns, {**mapping, **wanted}, shard)
    finder = Finder([shard.parent], leave=found.leave)
    row = row_of(record, plans[columns], finder, shard, group.key, found.splits.get(shard))
    if record.get(".txt") == [] and isinstance(row, BadRow) and row.kind == "empty-text":
        problem = "the sample has no text: add a .txt, or a caption in its .json"
        return replace(row, problem=problem)
    return row


def _record(
    group: _Group, found: Found, split_lines: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """The sample as a table's record, and the roles of its fields."""
    entry = _json(group)
    record: dict[str, Any] = dict(entry) if isinstance(entry, dict) else {}
    mapping: dict[str, str] = {}
    embedded = _media(group)
    for role, medium in embedded.items():
        record[f".{role}"] = medium
        mapping[role] = f".{role}"
    if "image" not in embedded:
        mapping["image"] = ""
        if not embedded:
            raise Bad("missing-file", _without_picture(group))
    texts = [
        _text(ref) for name, ref in group.fields.items() if _ending(name) in ("txt", "caption")
    ]
    if split_lines:
        texts = [line for text in texts for line in text.strip().splitlines() if line.strip()]
    if not texts and (isinstance(entry, str) or _strings(entry)):
        texts = [entry] if isinstance(entry, str) else list(entry)
    label = group.fields.get("cls")
    if label is not None:
        record.setdefault("label", _text(label).strip())
    if not texts and not _has_text(record, found) and not str(record.get("label", "1")).isdigit():
        texts = [str(record["label"])]
    told = [name for name in talk.NAMES if talk.turns_in(record.get(name)) is not None]
    if texts:
        record[".txt"] = texts
        mapping["text"] = ".txt"
    elif told:
        mapping["text"] = told[0]
    elif not _has_text(record, found):
        record[".txt"] = []  # the row is bad, and its picture known
        mapping["text"] = ".txt"
    return record, mapping


def _without_picture(group: _Group) -> str:
    """Why a sample has no picture that can be used."""
    every = ((name, forms.undecoded(_ending(name))) for name in group.fields)
    for name, form in every:
        if form is not None:
            return f"the sample's picture is {name}, of {form}"
    return "the sample has no picture (.jpg, .png, .webp ...)"


def _may_tell(group: _Group) -> bool:
    """Whether a group has a member that may hold texts."""
    return any(_ending(name) in ("txt", "json", "cls", "caption") for name in group.fields)


def _has_text(record: dict[str, Any], found: Found) -> bool:
    mapped = found.columns.get("text")
    return mapped in record if mapped else bool(text_columns(tuple(record)))


def _media(group: _Group) -> dict[str, Embedded]:
    found: dict[str, Embedded] = {}
    pictures = {name: ref for name, ref in group.fields.items() if _ending(name) in forms.decoded()}
    bare = {name: ref for name, ref in pictures.items() if "." not in name}
    chosen = bare or pictures  # seg.png beside jpg is no second picture
    if len(chosen) > 1:
        raise Bad("several-pictures", f"the sample has several pictures: {', '.join(chosen)}")
    for ref in chosen.values():
        found["image"] = _embedded(group, ref)
    for role, endings in _MEDIA:
        refs = [ref for name, ref in group.fields.items() if _ending(name) in endings]
        if len(refs) > 1:
            raise Bad("several-files", f"the sample has several files of {role}")
        if refs:
            found[role] = _embedded(group, refs[0])
    return found


def _embedded(group: _Group, ref: TarRef) -> Embedded:
    # the shard tells keys apart where all shards start to count at zero
    return Embedded(ref, group.key, (str(ref.tar), group.key), ref.tar.stem)


def _ending(name: str) -> str:
    return name.rsplit(".", 1)[-1].lower()


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _text(ref: TarRef) -> str:
    if ref.size > files.MOST_TEXT:
        raise Bad("over-long", f"{ref.member} has {ref.size:,} bytes: no text")
    text, valid = decoded(ref.read())
    if not valid:
        check_text(text)
    return text


def _json(group: _Group) -> Any:
    ref = group.fields.get("json")
    if ref is None:
        return {}
    try:
        value = parse_json(_text(ref))
    except ValueError as error:
        raise Bad("bad-json", f"{ref.member} is no valid JSON: {error}") from None
    if not isinstance(value, dict | str) and not _strings(value):
        kind = type(value).__name__
        raise Bad("wrong-type", f"{ref.member} must be an object or texts, not {kind}")
    return value
