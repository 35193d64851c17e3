"""One function per format: items into a new folder. `plait.data.writers.convert` calls them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.data.base.splits import SPLITS
from plait.data.readers.cells import listed
from plait.data.readers.columns import NAMES
from plait.data.readers.talk import PLACEHOLDER

if TYPE_CHECKING:
    from plait.data.writers.convert import Item

_KARPATHY = {"validation": "val"}
SHARD_SAMPLES = 10_000
SHARD_BYTES = 1 << 30
_KNOWN = frozenset(name for names in NAMES.values() for name in names)
_PROMPT = f"{PLACEHOLDER}\nDescribe the picture."


def _copy(ref: MediaRef, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(ref.read())


def _files(item: Item, folder: Path, images: str = "images") -> dict[str, str]:
    """Copies the files of a sample; returns their names by role."""
    named = {}
    if item.sample.image is not None:
        named["image"] = f"{images}/{item.name}" if images else item.name
        _copy(item.sample.image, folder / named["image"])
    for role, ref in item.sample.media.items():
        named[role] = f"{role}/{item.media[role]}"
        _copy(ref, folder / named[role])
    return named


def _extras(item: Item, lost: Counter[str], reserved: frozenset[str] = _KNOWN) -> dict[str, Any]:
    """Everything but files and texts, as JSON values."""
    sample = item.sample
    extras: dict[str, Any] = {}
    for name, value in (("split", item.split), ("group", sample.group), ("sample_id", item.id)):
        if value is not None:
            extras[name] = value
    if sample.labels:
        extras["labels"] = _plain(sample.labels)
    for name, value in sample.meta.items():
        if name.lower() in reserved or name.startswith(".") or name in extras:
            lost["meta"] += 1
        else:
            extras[name] = _plain(value)
    return extras


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, ensure_ascii=False, default=str))


def _record(item: Item, files: Mapping[str, str], lost: Counter[str]) -> dict[str, Any]:
    texts = list(item.sample.texts)
    record: dict[str, Any] = {**files, "text": texts}
    if item.sample.languages:
        record["language"] = list(item.sample.languages)
    return {**record, **_extras(item, lost)}


def imagefolder(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
    """``metadata.jsonl`` with ``file_name`` and ``text``, a string or a list."""
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for item in items:
            record = _record(item, _files(item, folder), lost)
            if "image" in record:
                record = {"file_name": record.pop("image"), **record}
            record["text"] = _one_or_list(record["text"])
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def jsonl(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
    """``pairs.jsonl`` with ``image`` and ``text``."""
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for item in items:
            record = _record(item, _files(item, folder), lost)
            record["text"] = _one_or_list(record["text"])
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _one_or_list(texts: list[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 and listed(texts[0]) == texts else texts


def _delimited(ending: str, delimiter: str) -> Callable[..., None]:
    def write(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
        """A row for each text."""
        records = []
        for item in items:
            record = _record(item, _files(item, folder), lost)
            texts, languages = record.pop("text"), record.pop("language", [])
            for number, text in enumerate(texts):
                row = {"text": text if listed(text) == [text] else json.dumps([text])}
                if languages:
                    row["language"] = languages[number] or ""
                records.append({**record, **row})
        columns = dict.fromkeys(name for record in records for name in record)
        ordered = ["image", "text"] + [name for name in columns if name not in ("image", "text")]
        used = [name for name in ordered if name in columns]
        with (folder / f"pairs.{ending}").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerow(used)
            writer.writerows([_cell(record.get(name)) for name in used] for record in records)

    return write


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parquet(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
    """``pairs.parquet``: pictures inside as ``{bytes, path}``, texts as lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chosen = list(items)
    records = [_record(item, {}, lost) for item in chosen]
    columns = dict.fromkeys(name for record in records for name in record)
    strings = [name for name in columns if name not in ("text", "language")]
    roles = [
        *(["image"] if any(item.sample.image for item in chosen) else []),
        *dict.fromkeys(role for item in chosen for role in item.sample.media),
    ]
    embedded = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    lists = pa.list_(pa.string())
    schema = pa.schema(
        [(role, embedded) for role in roles]
        + [(name, lists) for name in ("text", "language") if name in columns]
        + [(name, pa.string()) for name in strings]
    )
    with pq.ParquetWriter(folder / "pairs.parquet", schema) as writer:
        for start in range(0, len(chosen), 100):
            rows = []
            for item, record in zip(
                chosen[start : start + 100], records[start : start + 100], strict=True
            ):
                row = {name: _cell(record[name]) for name in strings if name in record}
                rows.append({**record, **row, **_embedded(item)})
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _embedded(item: Item) -> dict[str, Any]:
    cells = {}
    if item.sample.image is not None:
        cells["image"] = {"bytes": item.sample.image.read(), "path": item.name}
    for role, ref in item.sample.media.items():
        cells[role] = {"bytes": ref.read(), "path": item.media[role]}
    return cells


def webdataset(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
    """``pairs-000000.tar`` ...: a picture, and a ``.txt`` (one text of one line) or ``.json``."""
    with ExitStack() as stack:
        tar, shard, count, size = None, 0, 0, 0
        for item in items:
            if tar is None or count == SHARD_SAMPLES or size > SHARD_BYTES:
                stack.close()
                path = folder / f"pairs-{shard:06d}.tar"
                tar = stack.enter_context(tarfile.open(path, "w"))
                shard, count, size = shard + 1, 0, 0
            for name, data in _members(item, lost):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                size += len(data)
            count += 1


def _members(item: Item, lost: Counter[str]) -> Iterable[tuple[str, bytes]]:
    name = item.name or next(iter(item.media.values()))
    start, _, ending = name.rpartition(".")
    head, slash, base = start.rpartition("/")
    key = f"{head}{slash}{base.replace('.', '_')}"
    record = _record(item, {}, lost)
    if key != start:  # the key ends at the first dot, so that the name cannot be the id
        record["sample_id"] = item.sample.id
    text = item.sample.texts[0]
    lone = len(item.sample.texts) == 1 and len(text.splitlines()) == 1
    if item.sample.image is not None:
        yield f"{key}.{ending}", item.sample.image.read()
    for role, ref in item.sample.media.items():
        yield f"{key}.{item.media[role].rpartition('.')[2]}", ref.read()
    if lone:
        record.pop("text")
        yield f"{key}.txt", text.encode()
    if record:
        yield f"{key}.json", json.dumps(record, ensure_ascii=False).encode()


def coco(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
    """``annotations/captions.json`` and ``images``."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    reserved = _KNOWN | {"id", "image_id", "file_name"}
    for item in items:
        name = _picture(item, folder, lost)
        extras = _extras(item, lost, reserved)
        images.append({"id": item.number + 1, "file_name": name, **extras})
        for text, language in _texts(item):
            entry = {"id": len(annotations) + 1, "image_id": item.number + 1, "caption": text}
            annotations.append({**entry, **language})
    (folder / "annotations").mkdir()
    document = {"images": images, "annotations": annotations}
    _json(folder / "annotations" / "captions.json", document)


def karpathy(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
    """``dataset.json``; the format states a split for every picture."""
    images, sentences = [], 0
    reserved = _KNOWN | {"imgid", "sentids", "filepath"}
    for item in items:
        _picture(item, folder, lost)
        inner, _, base = f"images/{item.name}".rpartition("/")
        entry: dict[str, Any] = {"filepath": inner, "filename": base, "imgid": item.number}
        entry |= {
            **_extras(item, lost, reserved),
            "split": _KARPATHY.get(item.assigned, item.assigned),
        }
        entry["sentences"] = []
        for text, language in _texts(item):
            tokens = text.lower().split()
            one = {"raw": text, "tokens": tokens, "imgid": item.number, "sentid": sentences}
            entry["sentences"].append({**one, **language})
            sentences += 1
        entry["sentids"] = [one["sentid"] for one in entry["sentences"]]
        images.append(entry)
    _json(folder / "dataset.json", {"images": images, "dataset": "plait"})


def flickr8k(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
    """``captions.txt`` with a header, ``Images``, and lists of the splits that are stated."""
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    with (folder / "captions.txt").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        file.write("image,caption\n")
        for item in items:
            _picture(item, folder, lost, "Images")
            sample = item.sample
            lost["languages"] += bool(sample.languages)
            lost["groups"] += sample.group is not None
            lost["labels"] += bool(sample.labels)
            lost["meta"] += len(sample.meta)
            lost["ids"] += item.id is not None
            if item.split:
                lists[item.split].append(item.name)
            for text in sample.texts:
                line = " ".join(text.split("\n")).replace("\r", " ")
                lost["line breaks"] += line != text
                writer.writerow([item.name, line if listed(line) == [line] else json.dumps([line])])
    names = {"train": "train", "validation": "dev", "test": "test"}
    for split, pictures in lists.items():
        if pictures:
            path = folder / f"Flickr_8k.{names[split]}Images.txt"
            path.write_text("\n".join(pictures) + "\n", encoding="utf-8")


def llava(items: Iterable[Item], folder: Path, lost: Counter[str]) -> None:
    """``conversations.json``: the sample's own conversations, else an entry for each text."""
    entries = []
    reserved = _KNOWN | {"id", "conversations"}
    for item in items:
        sample = item.sample
        files = _files(item, folder)
        lost["media"] += len(sample.media)
        extras = _extras(item, lost, reserved)
        labels = dict(extras.pop("labels", {}))
        talks = labels.pop("conversations", None)
        if labels:
            extras["labels"] = labels
        if talks is None or sample.languages:
            talks = [_talk(item, text) for text in sample.texts]
        languages = [language for _, language in _texts(item)] if sample.languages else []
        for number, turns in enumerate(talks):
            entry: dict[str, Any] = {"id": sample.id if number == 0 else f"{sample.id}-{number}"}
            if "image" in files:
                entry["image"] = files["image"]
            entry["conversations"] = turns
            entries.append({**entry, **extras, **(languages[number] if languages else {})})
    _json(folder / "conversations.json", entries)


def _talk(item: Item, text: str) -> list[dict[str, str]]:
    if PLACEHOLDER in text:
        raise DataError(f"sample {item.sample.id!r}: llava cannot hold a text with {PLACEHOLDER}")
    prompt = _PROMPT if item.sample.image is not None else "Say something."
    return [{"from": "human", "value": prompt}, {"from": "gpt", "value": text}]


def _picture(item: Item, folder: Path, lost: Counter[str], images: str = "images") -> str:
    """Copies the picture; these formats have no place for other media."""
    if item.sample.image is None:
        raise DataError(f"sample {item.sample.id!r} ({item.sample.where}) has no picture")
    lost["media"] += len(item.sample.media)
    _copy(item.sample.image, folder / images / item.name)
    return f"{images}/{item.name}"


def _texts(item: Item) -> list[tuple[str, dict[str, str]]]:
    languages = item.sample.languages or (None,) * len(item.sample.texts)
    return [
        (text, {} if language is None else {"language": language})
        for text, language in zip(item.sample.texts, languages, strict=True)
    ]


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


WRITERS: dict[str, Callable[[Iterable["Item"], Path, Counter[str]], None]] = {
    "imagefolder": imagefolder,
    "csv": _delimited("csv", ","),
    "tsv": _delimited("tsv", "\t"),
    "jsonl": jsonl,
    "parquet": parquet,
    "webdataset": webdataset,
    "coco": coco,
    "karpathy": karpathy,
    "flickr8k": flickr8k,
    "llava": llava,
}
"""Format name to its writer: ``writer(items, folder, lost)``."""
