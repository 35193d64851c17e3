"""kill -9 and Ctrl-C through the installed command (see benchmarks/resume.py for the long form)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PLAIT = Path(sys.executable).with_name("plait")

SETTINGS = (
    "model.towers.image.options={size: 16, widths: [4, 8]}",
    "model.towers.text={encoder: scratch/transformer, options: {width: 8, layers: 1, heads: 2}}",
    "stages.0.epochs=30",
    "stages.0.batch_size=8",
    "checkpoints.steps=3",
    "evaluation.test=null",
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(data: Path, out: Path, *more: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [
        str(PLAIT),
        "train",
        "scratch",
        "--data",
        str(data),
        "--out",
        str(out),
        *settings,
        *more,
    ]


def updates(out: Path) -> int:
    log = out / "metrics.jsonl"
    return log.read_bytes().count(b'"kind": "update"') if log.exists() else 0


def stop(data: Path, out: Path, how: signal.Signals, after: int, *more: str) -> tuple[int, str]:
    """Sends a signal once a checkpoint past update ``after`` exists; exit code and stderr."""
    process = subprocess.Popen(
        command(data, out, *more), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        steps = [int(path.name[5:]) for path in (out / "checkpoints").glob("step-*")]
        if max(steps, default=0) > after:
            process.send_signal(how)
            break
        time.sleep(0.002)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.fixture(scope="module")
def unbroken(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run(command(pairs, out), env=ENVIRONMENT, check=True, capture_output=True)
    return (out / "model.safetensors").read_bytes()


def test_killed_twice(pairs: Path, tmp_path: Path, unbroken: bytes) -> None:
    out = tmp_path / "run"
    assert stop(pairs, out, signal.SIGKILL, 20)[0] == -signal.SIGKILL
    assert not (out / "model.safetensors").exists()
    assert stop(pairs, out, signal.SIGKILL, 90, "--resume")[0] == -signal.SIGKILL
    subprocess.run(
        command(pairs, out, "--resume"), env=ENVIRONMENT, check=True, capture_output=True
    )
    assert (out / "model.safetensors").read_bytes() == unbroken


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(pairs: Path, tmp_path: Path, unbroken: bytes, how: signal.Signals) -> None:
    out = tmp_path / "run"
    code, errors = stop(pairs, out, how, 40)
    assert code == 130
    assert f"go on with --out {out} --resume" in " ".join(errors.split())
    assert "Traceback" not in errors
    if how == signal.SIGTERM:  # one of the two is carried to its end
        subprocess.run(
            command(pairs, out, "--resume"), env=ENVIRONMENT, check=True, capture_output=True
        )
        assert (out / "model.safetensors").read_bytes() == unbroken
