"""Compression learns from train, chooses on validation, and looks at test for its report alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.training.run.test_splits_apart import change, stated

from plait import api
from plait.compression import compress as module
from plait.compression import nncf_int8, onnx_int8

FAST = {"samples": 16, "threads": 1, "max_recall_drop": 100.0}


def keys(rows: list[dict[str, np.ndarray]]) -> set[bytes]:
    return {b"|".join(value.tobytes() for value in row.values()) for row in rows}


def inputs_of_split(run: Path, source: Path, split: str) -> set[bytes]:
    """Pictures of a split as a tower of the run takes them."""
    from plait.compression.calibration import calibration_inputs
    from plait.compression.sides import preprocesses
    from plait.data import open_dataset
    from plait.models.store.storage import load_model

    part = open_dataset(str(source)).split(split)
    found = calibration_inputs(part, preprocesses(load_model(run)), samples=len(part))
    return keys(found["image"])


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What quantisers calibrate on and what the harm of layers is measured on, in their order."""
    seen: dict[str, list[Any]] = {"calibration": [], "probes": []}
    for home, name in ((onnx_int8, "OnnxQuantiser"), (nncf_int8, "NncfQuantiser")):
        original = getattr(home, name)

        def watched(graph: Any, rows: Any, work: Any, original: Any = original) -> Any:
            seen["calibration"].append(list(rows))
            return original(graph, rows, work)

        monkeypatch.setattr(home, name, watched)
    search = module.Int8Search

    def searched(quantisers: Any, reference: Any, probes: Any, *rest: Any) -> Any:
        seen["probes"] += [list(probes[name]) for name in quantisers]
        return search(quantisers, reference, probes, *rest)

    monkeypatch.setattr(module, "Int8Search", searched)
    return seen


@pytest.mark.parametrize("method", ["onnx", pytest.param("nncf", marks=pytest.mark.slow)])
def test_the_test_split_decides_nothing_and_probes_are_apart(
    method: str, run: Path, colours: Path, tmp_path: Path, spied: dict[str, list[Any]]
) -> None:
    numbers = stated(colours, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    change(tmp_path / "b", numbers["test"])
    reports, graphs = [], []
    for name in ("a", "b"):
        out = tmp_path / f"out-{name}"
        reports.append(api.compress(run, out=out, int8=method, data=str(tmp_path / name), **FAST))
        graphs.append({path.name: path.read_bytes() for path in out.glob("*.int8.*")})
    assert graphs[0] == graphs[1]
    for found in (
        [[one["validation_recall"] for one in report["tried"]] for report in reports],
        [[one["validation_recall"] for one in r["tried"][0]["int8"]] for r in reports],
    ):
        assert found[0] == found[1]
    recalls = [r["before"]["retrieval"]["text_to_image"]["R@1"] for r in reports]
    assert recalls[0] != recalls[1]  # the report itself is on test

    assert len(spied["calibration"]) == len(spied["probes"]) == 4  # pictures and texts, twice
    training = inputs_of_split(run, tmp_path / "a", "train")
    assert not training & inputs_of_split(run, tmp_path / "a", "test")
    for calibration, probes in zip(spied["calibration"], spied["probes"], strict=True):
        assert len(calibration) >= 8
        assert len(probes) >= 4
        assert not keys(calibration) & keys(probes)
        if "pixels" in calibration[0]:
            assert keys([*calibration, *probes]) <= training
