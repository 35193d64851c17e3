"""VQAv2: a file of questions, and one of annotations with ten answers each.

A sample is a question: its id is the ``question_id``, its group the stem of the picture's name, so
that all questions of a picture are in one split. The text is the question; ``labels`` hold
``question``, ``answers`` (the ten strings), ``answer`` (the most frequent) and the types.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plait.core.errors import DataError
from plait.core.media import FileRef
from plait.data.readers import documents
from plait.data.readers.detect import file_kind
from plait.data.readers.files import is_image, stem, walk
from plait.data.readers.imagefolder import inside
from plait.data.readers.leave import OUTSIDE
from plait.data.readers.rows import Bad, Found, Row, Rows, clean_texts

_NUMBER = re.compile(r"(\d+)$")


def read(found: Found) -> Rows:
    """One row a question."""
    documents_ = {path: documents.load(path) for path in _files(found)}
    questions = {path: one for path, one in documents_.items() if "questions" in one}
    if not questions:
        raise DataError("holds answers, but no file of questions is beside it", path=found.root)
    answers: dict[int, Any] = {}
    for path, document in documents_.items():
        if path not in questions:
            for number, entry in enumerate(documents.entries(document, "annotations", path)):
                try:
                    answers[documents.required(entry, "question_id", (int,), "its question")] = (
                        entry
                    )
                except Bad as bad:
                    yield Row(str(path), f"annotations[{number}]").bad(bad.kind, bad.problem)
    pictures = _pictures(found, list(questions))
    asked: set[int] = set()
    for path, document in questions.items():
        subtype = str(document.get("data_subtype", ""))
        for number, entry in enumerate(documents.entries(document, "questions", path)):
            row = Row(str(path), f"questions[{number}]", split=found.splits.get(path))
            try:
                asked.add(_fill(row, found, entry, answers, pictures, subtype))
            except Bad as bad:
                yield row.bad(bad.kind, bad.problem)
                continue
            yield row
    for id in answers.keys() - asked:
        problem = f"question_id {id} is not among the questions read"
        yield Row(str(found.root), f"question_id {id}").bad("orphan-caption", problem)


def _files(found: Found) -> Iterator[Path]:
    yield from found.files
    if found.root.is_file():  # the other half lies beside it
        for path in sorted(found.root.parent.glob("*.json")):
            same = re.sub("questions|annotations", "", path.name, flags=re.IGNORECASE)
            mine = re.sub("questions|annotations", "", found.root.name, flags=re.IGNORECASE)
            twin = same.replace("OpenEnded_", "") == mine.replace("OpenEnded_", "")
            if path != found.root and twin and not path.is_symlink() and file_kind(path) == "vqa":
                yield path


def _pictures(found: Found, paths: list[Path]) -> dict[int, list[FileRef]]:
    """Pictures by the number their name ends with, as in ``COCO_val2014_000000000042.jpg``."""
    numbered: dict[int, list[FileRef]] = defaultdict(list)
    roots = {found.folder, *(path.parent for path in paths)}
    roots |= {root.parent for root in roots if root.name in ("annotations", "questions")}
    seen: set[Path] = set()
    for root in sorted(roots):
        for name in walk(root):
            match = _NUMBER.search(stem(name)) if is_image(name) else None
            if match and (root / name) not in seen:
                seen.add(root / name)
                numbered[int(match[1])].append(FileRef(root / name, name))
    return numbered


def _fill(
    row: Row,
    found: Found,
    entry: Any,
    answers: dict[int, Any],
    pictures: dict[int, list[FileRef]],
    subtype: str,
) -> int:
    question_id = int(documents.required(entry, "question_id", (int,), "its number"))
    image_id = documents.required(entry, "image_id", (int,), "its picture")
    question = documents.required(entry, "question", (str,), "the question")
    candidates = pictures.get(image_id, [])
    if len(candidates) > 1 and subtype:
        candidates = [ref for ref in candidates if subtype in ref.name] or candidates
    if not candidates:
        raise Bad("missing-file", f"no picture's name ends with the number {image_id}")
    if len(candidates) > 1:
        both = f"{candidates[0].name} and {candidates[1].name}"
        raise Bad("ambiguous-file", f"image_id {image_id} may be {both}")
    if not inside(found, candidates[0].path):
        raise Bad(OUTSIDE, found.leave.refusal(candidates[0].name, candidates[0].path))
    row.image, row.name = candidates[0], candidates[0].name
    row.key, row.id = ("question", question_id), str(question_id)
    row.group = stem(row.name.rsplit("/", 1)[-1])
    row.texts = clean_texts([question])
    row.labels = {"question": row.texts[0], **answer_labels(answers.get(question_id))}
    row.meta = {"image_id": image_id, "question_id": question_id}
    return question_id


def answer_labels(annotation: dict[str, Any] | None) -> dict[str, Any]:
    """The labels of an annotation. Raises `Bad` when it is not laid out like one of VQA v2."""
    if annotation is None:  # the test questions have no public answers
        return {}
    given = documents.required(annotation, "answers", (list,), "the answers")
    labels: dict[str, Any] = {
        "answers": [
            one if isinstance(one, str) else documents.required(one, "answer", (str,), "an answer")
            for one in given
        ]
    }
    for name, label in (
        ("multiple_choice_answer", "answer"),
        ("question_type", "question_type"),
        ("answer_type", "answer_type"),
    ):
        if name in annotation:
            labels[label] = annotation[name]
    return labels
