from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.data import planted
from typer.testing import CliRunner

from plait.core.media import BytesRef
from plait.data.audit.audit import audit
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.vqa.answers import describe

PICTURES = [BytesRef(planted.jpeg(number), f"{number}.jpg") for number in range(3)]


def ask(
    id: str, picture: int | None, question: str, answers: Sequence[str], split: str = "train"
) -> Sample:
    return Sample(
        id=id,
        where=f"questions.json, row {id}",
        image=None if picture is None else PICTURES[picture],
        texts=(question,),
        group=None if picture is None else str(picture),
        split=split,
        labels={"question": question, "answers": list(answers)},
    )


def dataset(*samples: Sample) -> PairDataset:
    return PairDataset(samples, "vqa")


def test_findings() -> None:
    report = audit(
        dataset(
            ask("1", 0, "what is it?", ["dog"]),
            ask("2", 1, "what is it?", ["cat"]),  # of another picture: as it should be
            ask("3", 0, "What is it", ["horse"]),
            ask("4", 1, "what is it?", ["a cat", "dog"]),
            ask("5", None, "where?", ["here"]),
            ask("6", 2, "what is it?", ["cow"], split="test"),
        )
    )
    assert "questions" in report.checks
    found = {(one.kind, one.id): one.detail for one in report.rows}
    assert set(found) == {
        ("question-without-image", "5"),
        ("contradicting-answer", "3"),
        ("duplicate-question", "4"),
    }
    assert "'horse' here, and 'dog' for [1]" in found["contradicting-answer", "3"]
    assert report.errors == 1


def test_a_damaged_picture_is_one_finding() -> None:
    broken = BytesRef(b"no picture", "x.jpg")
    samples = [
        Sample(f"{k}", f"row {k}", broken, (f"question {k}?",), group="x", labels={"question": "?"})
        for k in range(3)
    ]
    assert audit(dataset(*samples)).counts["unreadable"] == 1


def test_overview() -> None:
    samples = [
        ask("1", 0, "how many?", ["two", "2", "three"]),
        ask("2", 0, "what is it?", ["A dog"]),
        ask("3", 1, "what is it?", []),
    ]
    assert describe(samples) == {
        "questions": 3,
        "pictures": 2,
        "answered": 2,
        "different answers": 3,
        "most frequent": ["2", "3", "dog"],
    }
    assert describe([Sample("1", "x", PICTURES[0], ("a caption",))]) == {}


def test_inspect_tells_of_questions(tmp_path: Path) -> None:
    from plait.cli.data import app

    (tmp_path / "0.jpg").write_bytes(planted.jpeg(0))
    rows = "image,question,answer,sample_id\n0.jpg,what is it?,A dog,1\n0.jpg,how many?,two,2\n"
    (tmp_path / "questions.csv").write_text(rows)
    options = ["--column", "text=question", "--column", "labels=question,answer"]
    command = ["inspect", str(tmp_path / "questions.csv"), *options]
    page = CliRunner().invoke(app, command)
    assert page.exit_code == 0, page.output
    assert "most frequent" in page.output
    assert "2, dog" in page.output or "dog, 2" in page.output
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert found["questions"]["answered"] == 2
    assert [one["answers"] for one in found["examples"]] == [["A dog"], ["two"]]
