from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.core.errors import DataError
from plait.training.loop.seeding import seed_update
from plait.training.run.checkpoint import (
    Checkpoint,
    checkpoints,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)


def make(step: int) -> Checkpoint:
    tensors = {
        "model/weight": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "optimiser/weight/step": torch.tensor(float(step)),
        "best/half": torch.randn(3).to(torch.bfloat16),
    }
    return Checkpoint(step, tensors, {"position": {"step": step}})


def test_round_trip(tmp_path: Path) -> None:
    written = make(7)
    found = read_checkpoint(write_checkpoint(tmp_path, written, keep=2))
    assert found.step == 7
    assert found.state["position"] == {"step": 7}
    for name, value in written.tensors.items():
        assert torch.equal(found.tensors[name], value)
        assert found.tensors[name].dtype == value.dtype
    assert set(found.under("optimiser")) == {"weight/step"}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 9, 10, 100):
        write_checkpoint(tmp_path, make(step), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 100


def test_the_same_step_again_takes_its_place(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, make(3), keep=2)
    second = make(3)
    write_checkpoint(tmp_path, second, keep=2)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["model/weight"], second.tensors["model/weight"])


def test_half_written_ones_do_not_count(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, make(1), keep=2)
    unfinished = tmp_path / "checkpoints" / ".step-00000009.abc"
    unfinished.mkdir()
    (unfinished / "state.safetensors").write_bytes(b"half")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    assert not unfinished.exists()


def test_none_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make(1), keep=2)
    tensors = path / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    with pytest.raises(DataError, match=f"{path}.*go on from an older one"):
        latest_checkpoint(tmp_path)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make(1), keep=1)
    assert sorted(file.name for file in path.iterdir()) == ["state.json", "state.safetensors"]


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_an_update_draws_the_same_numbers_whatever_came_before() -> None:
    seed_update(0, 1, 5)
    first = draw()
    draw()
    seed_update(0, 1, 5)
    assert draw() == first
    for other in ((1, 1, 5, 0), (0, 2, 5, 0), (0, 1, 6, 0), (0, 1, 5, 1)):
        seed_update(*other)
        assert all(a != b for a, b in zip(draw(), first))
