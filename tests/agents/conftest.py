"""Two tiny trained runs, an index, and what serves them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from plait import api

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 160, 50)}

ALIGN = [
    "model.dim=16",
    "model.towers.image={encoder: scratch/cnn, options: {size: 16, widths: [8, 16]}}",
    "model.towers.text={encoder: scratch/ngram, options: {width: 16, buckets: 1009}}",
    "stages.0.epochs=12",
    "stages.0.batch_size=16",
    "stages.0.optimiser.lr=0.01",
]
VQA = [
    "model.dim=16",
    "model.towers.image={encoder: scratch/cnn, options: {size: 16, widths: [8, 16]}}",
    "model.towers.text={encoder: scratch/transformer, vocabulary: {kind: word, size: 100}, "
    "options: {width: 16, layers: 1, heads: 2, max_length: 16}}",
    "model.sizes={}",
    "model.fusion=concat",
    "stages.0.augment=null",
    "stages.0.epochs=8",
    "stages.0.batch_size=32",
    "stages.0.optimiser.lr=0.01",
]


@dataclass(frozen=True)
class Tiny:
    """Folders of trained things: ``finder`` aligns, ``teller`` answers."""

    pictures: Path
    finder: Path
    teller: Path
    index: Path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _pictures(folder: Path) -> None:
    """36 plain pictures, with a caption each."""
    lines = []
    for number in range(36):
        name = list(COLOURS)[number % 3]
        shade = tuple(max(0, value - number // 3 * 3) for value in COLOURS[name])
        Image.new("RGB", (20, 16), shade).save(folder / f"{name}_{number:02d}.png")
        row = {"file_name": f"{name}_{number:02d}.png", "text": f"a {name} picture, {number}"}
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _questions(folder: Path) -> None:
    """Red and blue pictures with a question each, as VQA v2's two files."""
    asked, answered = [], []
    for number in range(48):
        name = ("red", "blue")[number % 2]
        shade = tuple(max(0, value - number // 2 * 3) for value in COLOURS[name])
        Image.new("RGB", (16, 16), shade).save(folder / f"picture_{number:012d}.png")
        for text, answer in (
            ("what colour is it?", name),
            ("is it red?", "yes" if name == "red" else "no"),
        ):
            key = {"question_id": len(asked), "image_id": number}
            asked.append({**key, "question": text})
            answered.append(
                {**key, "answers": [{"answer": answer}] * 10, "multiple_choice_answer": answer}
            )
    (folder / "v2_questions.json").write_text(json.dumps({"questions": asked}))
    (folder / "v2_annotations.json").write_text(json.dumps({"annotations": answered}))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    base = tmp_path_factory.mktemp("tiny")
    # Apart, since questions look for their pictures around their own folder too.
    pictures, questions = base / "pairs" / "pictures", base / "vqa" / "questions"
    pictures.mkdir(parents=True)
    questions.mkdir(parents=True)
    _pictures(pictures)
    _questions(questions)
    made = Tiny(pictures, base / "finder", base / "teller", base / "colours")
    api.train("scratch", data=pictures, out=made.finder, overrides=ALIGN)
    api.train("easy-vqa", data=questions, out=made.teller, overrides=VQA)
    api.index(made.finder, pictures, made.index)
    return made
