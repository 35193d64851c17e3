"""Fusion tasks in two gloo processes: the weights of one process, and the same in both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from plait.training.recipe.recipe import load_recipe
from plait.training.run.run import train

BIN = Path(sys.executable).parent
TORCHRUN = (str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2")

# Dropout, which two processes draw otherwise than one, is off. Each process keeps its weights and the
# pairings that it drew; then both compare.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from plait.training.run import stages
from plait.training.tasks import fusion_tasks
from plait.training.studies.compare import compare
from plait.training.recipe.recipe import load_recipe
from plait.training.run.run import train

folder, data = Path(sys.argv[1]), sys.argv[2]
pairings, draw = [], fusion_tasks.random_pairing

def keep(groups, **options):
    found = draw(groups, **options)
    if torch.is_grad_enabled():
        pairings.append(found.right.tolist())
    return found

fusion_tasks.random_pairing = keep
for name in ("answers", "turns"):
    made = []
    original = stages.StageRunner.run

    def run(self):
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        made.append((self, original(self)))
        return made[0][1]

    stages.StageRunner.run = run
    train(load_recipe(folder / f"{name}.yaml", data=data), out=folder / f"{name}-two")
    stages.StageRunner.run = original
    runner, model = made[0]
    rank = runner.accelerator.process_index
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, folder / f"{name}-{rank}.safetensors")
(folder / f"pairings-{rank}.json").write_text(json.dumps(pairings))
rows = compare(
    folder / "turns.yaml",
    "model.fusion=concat,gated",
    out=folder / "compared",
    data=data,
    overrides=["stages.0.steps=2", "evaluation.test=test"],
)
print(f"process {rank} has {len(rows)} rows")
"""

STEPS = 6


def recipe(tasks: list[dict[str, Any]], **stage: Any) -> dict[str, Any]:
    """A recipe that trains in a second."""
    return {
        "name": "two",
        "model": {
            "kind": "fusion",
            "dim": 8,
            "fusion": "concat",
            "towers": {
                "image": {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}},
                "text": {
                    "encoder": "scratch/transformer",
                    "options": {"width": 8, "layers": 1, "heads": 2, "max_length": 16},
                    "vocabulary": {"kind": "word", "size": 100},
                },
            },
        },
        "stages": [
            {
                "tasks": tasks,
                "train": {"image.encoder": "full", "text.encoder": "full"},
                "steps": STEPS,
                "batch_size": 8,
                "precision": "float32",
                "optimiser": {"lr": 0.01, "weight_decay": 0.1},
                **stage,
            }
        ],
        "evaluation": {"test": None, "best": False},
    }


ASKED = ("is it red?", "is this one red?")  # matching needs two texts to tell apart

RECIPES = {
    "answers": recipe([{"objective": "answer"}]),
    "turns": recipe([{"objective": "answer"}, {"objective": "match"}], sampling="round_robin"),
}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 pictures with a question each; a third of the answers of training is missing."""
    folder = tmp_path_factory.mktemp("questions")
    lines = []
    for number in range(32):
        red = number % 2
        shade = (220 - 5 * number, 30, 30) if red else (30, 30, 220 - 5 * number)
        Image.new("RGB", (16, 16), shade).save(folder / f"{number}.png")
        split = ("train", "validation", "test")[0 if number < 24 else 1 + number % 2]
        line = {"file_name": f"{number}.png", "text": ASKED[number // 4 % 2], "split": split}
        if number >= 24 or number % 3:
            line["answer"] = "yes" if red else "no"
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def two(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the runs of two processes, and what they said."""
    folder = tmp_path_factory.mktemp("two")
    for name, content in RECIPES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [*TORCHRUN, str(script), str(folder), str(questions)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def updates(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["kind"] == "update"]


def telling(name: str, value: torch.Tensor) -> torch.Tensor:
    """Without the bias of keys: it moves no softmax, and of rounding Adam makes whole steps."""
    if not name.endswith("qkv.bias"):
        return value
    queries, _, values = value.chunk(3)
    return torch.cat([queries, values])


def test_answers_train_as_in_one_process(
    two: tuple[Path, str], questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the halves of a batch have different numbers of answers."""
    folder, _ = two
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, given: given)
    train(load_recipe(folder / "answers.yaml", data=str(questions)), out=tmp_path / "one")
    one, other = updates(tmp_path / "one"), updates(folder / "answers-two")
    assert len(one) == len(other) == STEPS
    for left, right in zip(one, other):
        assert right["loss"] == pytest.approx(left["loss"], rel=1e-5)
        assert right["parts"]["answer"] == pytest.approx(left["parts"]["answer"], rel=1e-5)
        assert right["grad_norm"] == pytest.approx(left["grad_norm"], rel=1e-4)
        assert right["rows"] == left["rows"] == 8
    weights = [
        load_file(path / "model.safetensors") for path in (tmp_path / "one", folder / "answers-two")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(
            telling(name, weights[1][name]), telling(name, value), rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("name", RECIPES)
def test_both_processes_end_with_the_same_weights(name: str, two: tuple[Path, str]) -> None:
    left, right = (load_file(two[0] / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_tasks_take_turns_in_both(two: tuple[Path, str]) -> None:
    """Each update is that of one task, the same in both."""
    for number, record in enumerate(updates(two[0] / "turns-two")):
        drawn = ("answer", "match")[number % 2]
        assert set(record["parts"]) == {drawn}


def test_processes_draw_pairs_of_their_own(two: tuple[Path, str]) -> None:
    drawn = [json.loads((two[0] / f"pairings-{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(one) for one in drawn] == [STEPS // 2] * 2
    assert drawn[0] != drawn[1]


def test_one_process_writes_the_comparison(two: tuple[Path, str]) -> None:
    """The other never reads a report that is not there yet."""
    folder, said = two
    assert "process 0 has 2 rows" in said and "process 1 has 0 rows" in said
    found = json.loads((folder / "compared" / "compare.json").read_text(encoding="utf-8"))
    assert [row["value"] for row in found["rows"]] == ["concat", "gated"]
