"""Questions, comparisons and reranking through the installed command, and their bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from plait.core.files import read_json

TINY = [
    "model.dim=16",
    "model.towers.image={encoder: scratch/cnn, options: {size: 16, widths: [8, 16]}}",
    "model.towers.text={encoder: scratch/transformer, vocabulary: {kind: word, size: 100}, "
    "options: {width: 16, layers: 1, heads: 2, max_length: 16}}",
    "model.sizes={}",
    "stages.0.augment=null",
    "stages.0.epochs=8",
    "stages.0.batch_size=32",
    "stages.0.optimiser.lr=0.01",
]
SET = [word for change in TINY for word in ("--set", change)]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures, red or blue, with two questions each: VQA v2's two files."""
    folder = tmp_path_factory.mktemp("vqa")
    asked, answered = [], []
    for number in range(48):
        name, shade = (("red", (220, 30, 30)), ("blue", (30, 30, 220)))[number % 2]
        shade = tuple(max(0, value - number // 4 * 3) for value in shade)
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
    return folder


@pytest.fixture(scope="module")
def answers(plait: Callable, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that answers."""
    out = tmp_path_factory.mktemp("runs") / "vqa"
    joint = ("--set", "model.fusion=concat")
    plait("train", "easy-vqa", "--data", questions, "--out", out, "--json", *SET, *joint)
    return out


def test_train_evaluate_ask(plait: Callable, questions: Path, answers: Path) -> None:
    measured = plait("evaluate", answers, "--json").json
    assert measured["vqa"]["accuracy"] > 90
    assert set(measured["controls"]) == {"question_only", "picture_only", "shuffled_pictures"}
    assert "all questions" in plait("evaluate", answers).out
    picture = questions / "picture_000000000001.png"
    found = plait("ask", answers, picture, "what colour is it?", "--json").json
    assert found["answer"] == found["answers"][0]["answer"] == "blue"
    assert sum(one["probability"] for one in found["answers"]) <= 1 + 1e-5
    assert plait("ask", answers, picture, "is it red?").out.splitlines()[0] == "no"
    assert "How well it answers" in (answers / "report.html").read_text(encoding="utf-8")


def test_compare_reuses_what_is_finished(plait: Callable, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "compared"
    command = ["compare", "easy-vqa", "--data", questions, "--out", out, *SET]
    command += ["--set", "stages.0.epochs=1", "--json"]
    first = plait(*command, "--over", "model.fusion=concat,gated").json
    assert [row["value"] for row in first["rows"]] == ["concat", "gated"]
    for row in first["rows"]:
        assert row["low"] <= row["quality"] <= row["high"]
        assert row["parameters"] > 0 and row["step_ms"] > 0 and row["latency_ms"] > 0
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert read_json(out / "compare.json")["over"] == "model.fusion"
    weights = (out / "concat" / "model.safetensors").stat().st_mtime_ns
    plait(*command, "--over", "model.fusion=concat,late")
    assert (out / "concat" / "model.safetensors").stat().st_mtime_ns == weights


def test_rerank(plait: Callable, pairs: Path, run: Path, tmp_path: Path) -> None:
    judge = tmp_path / "judge"
    settings = [
        "model.towers.image={encoder: scratch/cnn, options: {size: 16, widths: [8, 16]}}",
        "model.towers.text={encoder: scratch/ngram, options: {width: 16, buckets: 1009}}",
        "model.dim=16",
        "stages.0.train={image.encoder: full, text.encoder: full}",
        "stages.0.epochs=2",
        "stages.0.batch_size=16",
    ]
    changes = [word for change in settings for word in ("--set", change)]
    trained = plait("train", "rerank", "--data", pairs, "--out", judge, "--json", *changes).json
    assert 0 <= trained["match"]["accuracy"] <= 100
    index = tmp_path / "index"
    plait("index", run, pairs, "--out", index)
    plain = plait("search", index, "a red circle", "-k", 60, "--json").json
    better = plait("search", index, "a red circle", "-k", 60, "--rerank", judge, "--json").json
    assert {hit["id"] for hit in plain} == {hit["id"] for hit in better}
    assert [hit["rank"] for hit in better] == list(range(1, len(better) + 1))
    assert all(isinstance(hit["match"], float) for hit in better)
    refused = plait("search", index, "red", "--rerank", run, code=2).err
    assert "reranking needs a fusion model" in refused


def test_bad_input(plait: Callable, questions: Path, answers: Path, tmp_path: Path) -> None:
    picture = questions / "picture_000000000001.png"
    assert "the question is empty" in plait("ask", answers, picture, " ", code=2).err
    assert "missing.png" in plait("ask", answers, tmp_path / "missing.png", "what?", code=2).err
    said = plait("index", answers, questions, "--out", tmp_path / "index", code=2).err
    assert "needs an alignment model" in said and not (tmp_path / "index").exists()
    command = ["compare", "easy-vqa", "--data", questions, "--out", tmp_path / "none", *SET]
    assert "at least two values" in plait(*command, "--over", "model.fusion=late", code=2).err
    said = plait(*command, "--over", "model.fusion=late,gate", code=2).err
    assert "did you mean 'late'" in said or "did you mean 'gated'" in said
    assert not (tmp_path / "none").exists()


def test_a_question_without_its_picture_or_answer(
    plait: Callable, questions: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(questions, folder)
    (folder / "picture_000000000007.png").unlink()
    command = ["train", "easy-vqa", "--data", folder, "--out", tmp_path / "run", *SET]
    said = plait(*command, code=2).err
    assert "no picture's name ends with the number 7" in said and "questions[14]" in said
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_an_answer_that_cannot_be_chosen(plait: Callable, questions: Path, tmp_path: Path) -> None:
    """Counted in a note unless the recipe wants it to fail; the folder can be used again."""
    command = ["train", "easy-vqa", "--data", questions, "--out", tmp_path / "run", *SET]
    command += ["--set", "model.fusion=concat", "--set", "stages.0.epochs=1"]
    few = ["--set", "stages.0.tasks.0.answers=3"]
    said = plait(
        *command, *few, "--set", "stages.0.tasks.0.unknown_answers=fail", "--json", code=2
    ).json["error"]["message"]
    found = re.fullmatch(
        r".*v2_questions\.json, row questions\[(\d+)\]: the question \[\S+\] has the usual answer "
        r"'(\w+)', which is not among the 3 to choose from; (\d+) of (\d+) training questions are "
        r"such: raise answers to 4, or let them be with unknown_answers: count",
        said,
    )
    assert found, said
    row, answer, outside, all_questions = found.groups()
    blue, asks_colour = int(row) // 2 % 2 == 1, int(row) % 2 == 0
    expected = ("blue" if blue else "red") if asks_colour else ("no" if blue else "yes")
    assert answer == expected
    assert 0 < int(outside) < int(all_questions) / 2
    assert not (tmp_path / "run" / "model.safetensors").exists()
    kept = plait(*command, *few, "--json").json
    assert any(
        note == f"{outside} of {all_questions} training questions have a usual answer that is not "
        "among the 3 to choose from (tasks.answers)."
        for note in kept["notes"]
    )


def test_a_run_with_missing_weights(plait: Callable, answers: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(answers, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(key for key in sorted(weights) if key.startswith("heads.answer"))
    del weights[name]
    save_file(weights, broken / "model.safetensors")
    said = plait("evaluate", broken, code=2).err
    assert "1 weights are missing" in said and name in said
