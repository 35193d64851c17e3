"""easy-VQA (Victor Zhou, 2019): 5,000 drawings of one shape each, and simple questions about them.

Pictures and questions are those of the package `easy-vqa` (MIT): 64 x 64 pixels, three shapes in
eight colours, 38,575 training and 9,673 test questions with one answer of 13.

What a picture shows is told by its questions alone: ``shape`` and ``color`` are there where one of
them tells (about 19 pictures of 20, and 23 of 25), ``description`` always: "a red circle", "a red shape", "a circle".

A sample is a question, as in `plait.data.readers.vqa`; the group is its picture. Test is the
official test split. Validation is a tenth of the official *training pictures*, by
`plait.data.base.splits.split_of`, with all their questions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from plait.core.errors import DataError, MissingExtra
from plait.core.media import FileRef
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.base.splits import split_of

NAME = "easy-vqa"
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")


def load(*, folder: str | Path | None = None) -> PairDataset:
    """All questions: training (with the part held out for validation), then test.

    Args:
        folder: a folder laid out like the package's ``data``; None: the package's own.

    Raises:
        MissingExtra: the package is not installed.
        DataError: the folder is not laid out like that.
    """
    root = _data() if folder is None else Path(folder)
    samples = [*_read(root, "train"), *_read(root, "test")]
    version = f" {metadata.version(NAME)}" if folder is None else ""
    return PairDataset(samples, NAME, root, detected=f"questions of the package {NAME}{version}")


def _data() -> Path:
    try:
        module = import_module("easy_vqa")
    except ImportError as error:
        raise MissingExtra(NAME, "demo", "the easy-VQA data set") from error
    return Path(str(module.__file__)).parent / "data"


def _read(root: Path, official: str) -> list[Sample]:
    path = root / official / "questions.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", path=path) from error
    shown = _shown(entries)
    asked: dict[int, int] = {}
    pictures: dict[int, FileRef] = {}
    samples = []
    for number, (question, answer, image) in enumerate(entries, 1):
        group = f"{official}-{image}"
        if image not in pictures:
            name = f"{official}/images/{image}.png"
            pictures[image] = FileRef(root / name, name)
        asked[image] = asked.get(image, 0) + 1
        samples.append(
            Sample(
                id=f"{group}-{asked[image]}",
                where=f"{NAME}/{official}/questions.json, row {number}",
                image=pictures[image],
                texts=(question,),
                languages=("en",),
                group=group,
                split=_split(official, group),
                labels={
                    "question": question,
                    "answer": answer,
                    "answers": (answer,),
                    "answer_type": _kind(answer),
                    **shown[image],
                },
                meta={"licence": "MIT, easy-VQA"},
            )
        )
    return samples


def _shown(entries: Sequence[Sequence[Any]]) -> dict[int, dict[str, str]]:
    """What the questions of each picture tell of it.

    A shape or colour is there if an answer names it, a question takes it for granted ("what color is
    the circle?"), or one that asks for it is answered yes, or no where it is negated.
    """
    told: dict[int, dict[str, str]] = {image: {} for _, _, image in entries}
    for question, answer, image in entries:
        words = set(question.rstrip("?").split())
        if answer not in ("yes", "no"):
            words.add(answer)
        elif (answer == "yes") == bool(words & {"not", "no"}):
            continue
        for label, names in (("shape", SHAPES), ("color", COLOURS)):
            told[image].update((label, name) for name in names if name in words)
    for labels in told.values():
        words_of = (labels.get("color"), labels.get("shape", "shape"))
        labels["description"] = " ".join(["a", *filter(None, words_of)])
    return told


def _split(official: str, group: str) -> str:
    held_out = official == "train" and split_of(group) == "validation"
    return "validation" if held_out else official


def _kind(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in SHAPES else "color"
