"""VQA v2 (Goyal et al. 2017): questions about COCO photographs, ten answers each.

The hub's tables have one row a question: ``question``, ``question_id``, ``image_id``, ``answers``
(ten, or none in the test splits), ``multiple_choice_answer``, ``question_type``, ``answer_type``
and, in most copies, the ``image``. Where a copy has no pictures they come from COCO's own server,
once, into the cache. The official files of visualqa.org are read by `plait.data.readers.vqa`: open
their folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from plait.core.errors import DataError
from plait.core.files import cache_home
from plait.core.media import ArrowRef, FileRef
from plait.data.base import splits
from plait.data.base.dataset import PairDataset
from plait.data.readers import huggingface, vqa
from plait.data.readers.assemble import assemble
from plait.data.readers.documents import required
from plait.data.readers.files import stem
from plait.data.readers.rows import Bad, Row, Rows, clean_texts
from plait.data.sets import hub
from plait.data.sets.download import fetch_all

NAME = "vqa-v2"
REPOSITORY = "lmms-lab/VQAv2"
COCO = "http://images.cocodataset.org"
_FOLDERS = {"train": "train2014", "validation": "val2014", "test": "test2015"}


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one split that are wanted."""

    split: str
    table: pa.Table


def load(
    *,
    split: str = "all",
    limit: int | None = None,
    repository: str | Path = REPOSITORY,
    images: str | Path | None = None,
) -> PairDataset:
    """The set, or a part. A sample is a question; its group is its picture.

    Args:
        split: ``train``, ``validation``, ``test`` or ``all``.
        limit: no more questions of each split than this.
        repository: a copy on the hub, or a folder that ``save_to_disk`` wrote of one. The default
            has the validation and test questions with their pictures; for training name a copy
            that has the training questions (``HuggingFaceM4/VQAv2`` in tables), or open a folder
            of the official files.
        images: for copies without pictures, a folder that has them in ``train2014``, ``val2014``
            and ``test2015`` already.

    Raises:
        DataError: the hub or COCO's server cannot be reached, a picture is missing, or a table
            is not laid out like VQA v2.
    """
    wanted = splits.checked(split)
    local = Path(repository).exists()
    tables = huggingface.from_disk(Path(repository)) if local else hub.tables(NAME, str(repository))
    parts = []
    for name, data in tables.items():
        its = splits.canonical(name)  # None for test-dev: its questions are among those of test
        if its is not None and wanted in ("all", its):
            count = len(data) if limit is None else min(limit, len(data))
            parts.append(_Part(its, huggingface.table_of(data.select(range(count)))))
    folder = Path(images) if images else cache_home() / "sets" / NAME
    _fetch(parts, folder, given=images is not None)
    samples, _ = assemble(_rows(parts, str(repository), folder), fail=True)
    if not samples:
        raise DataError(f"{NAME}: {repository} has no {wanted} questions, but {', '.join(tables)}")
    where = f"folder {repository}" if local else f"Hugging Face hub, {repository}"
    return PairDataset(samples, NAME, folder, detected=where)


def _fetch(parts: list[_Part], folder: Path, *, given: bool) -> None:
    """Sees to the pictures that the tables do not hold."""
    names = sorted(
        {
            _picture(part.split, image)
            for part in parts
            if _bytes(part.table) is None
            for image in _column(part.table, "image_id")
        }
    )
    if given:
        missing = [folder / name for name in names if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{len(missing)} of {len(names)} pictures are missing", path=missing[0])
        return
    links = [f"{COCO}/{name}" for name in names]
    problems = fetch_all(
        [(link, folder / name) for link, name in zip(links, names)], "Fetching COCO"
    )
    for link, problem in zip(links, problems, strict=True):
        if problem:
            raise DataError(f"{link} {problem}: try again, what has come is kept")


def _rows(parts: list[_Part], repository: str, folder: Path) -> Rows:
    for part in parts:
        data = _bytes(part.table)
        kept = [name for name in part.table.column_names if name != "image"]
        number = 0
        for batch in part.table.select(kept).to_batches(max_chunksize=10_000):
            for record in batch.to_pylist():
                number += 1
                row = Row(f"{repository}/{part.split}", number, split=part.split)
                try:
                    _fill(row, record)
                    name = _picture(part.split, required(record, "image_id", (int,), "its picture"))
                except Bad as bad:
                    yield row.bad(bad.kind, bad.problem)
                    continue
                row.name, row.group = name, stem(Path(name).name)
                row.image = (
                    FileRef(folder / name, name)
                    if data is None
                    else ArrowRef(data, number - 1, name)
                )
                yield row


def _fill(row: Row, record: Mapping[str, Any]) -> None:
    question_id = required(record, "question_id", (int,), "its number")
    row.key, row.id = ("question", question_id), str(question_id)
    row.texts = clean_texts([required(record, "question", (str,), "the question")])
    row.languages = ("en",)
    annotated = {key: value for key, value in record.items() if value is not None}
    row.labels = {
        "question": row.texts[0],
        **vqa.answer_labels(annotated if annotated.get("answers") else None),
    }
    row.meta = {"image_id": record.get("image_id"), "question_id": question_id}


def _picture(split: str, image_id: int) -> str:
    return f"{_FOLDERS[split]}/COCO_{_FOLDERS[split]}_{image_id:012d}.jpg"


def _bytes(table: pa.Table) -> pa.ChunkedArray | None:
    """The column of pictures, or None when the table has none or only their names."""
    if "image" not in table.column_names:
        return None
    column = table["image"]
    if not (pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0):
        return None
    data = pc.struct_field(column, "bytes")
    return None if data.null_count else data


def _column(table: pa.Table, name: str) -> list[Any]:
    if name not in table.column_names:
        shown = ", ".join(table.column_names)
        raise DataError(f"{NAME}: the table has no column {name!r}, but {shown}")
    return table[name].to_pylist()
