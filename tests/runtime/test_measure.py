"""Figures of `plait bench`: counted right, and measured in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plait.core.errors import UserError
from plait.deployment.bench import bench
from plait.runtime.measure import figures, latencies, peak_bytes, text_of


def test_medians_and_rates() -> None:
    seconds = [0.004] * 10 + [0.002] * 9 + [0.1]
    found = figures(seconds, batch=8)
    assert found == {"p50_ms": 4.0, "p95_ms": 100.0, "per_second": 2000.0, "rounds": 20}
    assert figures([0.5], 1) == {"p50_ms": 500.0, "p95_ms": 500.0, "per_second": 2.0, "rounds": 1}


def test_warm_up_does_not_count() -> None:
    calls: list[int] = []
    found = latencies(lambda: calls.append(1), seconds=0.0)
    assert len(found) == 7
    assert len(calls) == 2 + 7
    assert len(latencies(lambda: None, seconds=0.05, rounds=3)) > 3


def test_texts_have_the_asked_length() -> None:
    def lengths(texts: list[str]) -> np.ndarray:
        return np.array([len(text.split()) + 2 for text in texts])

    for tokens in (3, 9, 16, 40):
        assert lengths([text_of(tokens, lengths)])[0] == tokens


def test_the_peak_grows_with_memory() -> None:
    before = peak_bytes()
    block = np.ones(before + 2**26, np.uint8)
    assert peak_bytes() >= len(block)


def test_a_bundle_is_measured_in_its_own_process(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    (found,) = bench(
        folder,
        engine="onnxruntime",
        precision="float32",
        threads=1,
        batches=(1, 3),
        tokens=5,
        seconds=0.0,
    )
    assert [tower["tower"] for tower in found["towers"]] == ["image", "text"]
    for tower in found["towers"]:
        assert [point["batch"] for point in tower["batches"]] == [1, 3]
        for point in tower["batches"]:
            assert point["rounds"] == 7
            assert 0 < point["p50_ms"] <= point["p95_ms"]
            assert point["per_second"] == pytest.approx(
                1e3 * point["batch"] / point["p50_ms"], 0.02
            )
    assert found["peak_bytes"] < 400 * 2**20  # no torch in it
    assert 0 < found["opened_seconds"] < found["first_seconds"]


def test_what_cannot_be_measured_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runs here in .*onnxruntime float32"):
        bench(folder, engine="torch")
    with pytest.raises(UserError, match="numbers from 1 on"):
        bench(folder, batches=(0,))
    with pytest.raises(UserError, match="is no plait model"):
        bench(tmp_path, precision="float32", seconds=0.0)


def test_the_program_tells_faults_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plait.runtime.measure", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "is no bundle" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_start_alone(folder: Path) -> None:
    command = [sys.executable, "-m", "plait.runtime.measure", str(folder), "--batches", ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert [tower["batches"] for tower in found["towers"]] == [[], []]
    assert all(tower["first_seconds"] > 0 for tower in found["towers"])
