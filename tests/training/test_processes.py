"""Two gloo processes started by ``torchrun`` against one with the same global batch."""

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
from safetensors.torch import load_file

BIN = Path(sys.executable).parent
TORCHRUN = (str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "--redirects", "3")

# Without dropout: two processes draw other numbers than one.
SETTINGS: dict[str, Any] = {
    "name": "two",
    "model": {
        "dim": 8,
        "bias": -2.0,
        "towers": {
            "image": {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}},
            "text": {
                "encoder": "scratch/transformer",
                "options": {"width": 8, "layers": 1, "heads": 2, "max_length": 40},
            },
        },
    },
    "stages": [
        {
            "tasks": [{"objective": "info_nce"}, {"objective": "sigmoid", "weight": 0.1}],
            "train": {"image.encoder": "full", "text.encoder": "full"},
            "steps": 6,
            "batch_size": 12,
            "chunk": 4,
            "precision": "float32",
        }
    ],
    "evaluation": {"test": None},
}


def launch(command: tuple[str, ...], recipe: Path, data: Path, out: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*command, "train", str(recipe), "--data", str(data), "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def telling(name: str, value: torch.Tensor) -> torch.Tensor:
    """Without the bias of keys: it moves no softmax, and of rounding Adam makes whole steps."""
    if not name.endswith("qkv.bias"):
        return value
    queries, _, values = value.chunk(3)
    return torch.cat([queries, values])


def test_two_processes_give_the_losses_of_one(colours: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    one = launch((str(BIN / "plait"),), recipe, colours, tmp_path / "one")
    said = tmp_path / "said"
    torchrun = (*TORCHRUN, "--log-dir", str(said), "-m", "plait")
    two = launch(torchrun, recipe, colours, tmp_path / "two")
    spoken = {path.parent.name: path.read_text() for path in said.rglob("stdout.log")}
    assert spoken.keys() == {"0", "1"}
    assert "run: " in spoken["0"] and not spoken["1"]  # one process speaks
    assert len(one) == len(two) > 6
    for left, right in zip(one, two):
        for key in {"loss", "grad_norm", "scale", "rows", "train_loss"} & set(left):
            assert right[key] == pytest.approx(left[key], rel=1e-5), key
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(
            telling(name, weights[1][name]), telling(name, value), rtol=1e-4, atol=1e-5
        )
