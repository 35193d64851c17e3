"""``plait compress`` as it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_a_run_becomes_an_int8_bundle(plait: Callable, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    options = ("--samples", 8, "--max-recall-drop", 100, "--threads", 1, "--json")
    done = plait("compress", run, "--out", out, *options)
    report = done.json  # exactly one document on standard output
    assert report["out"] == str(out)
    assert report["ratios"]["bytes"] > 0
    assert {path.name for path in out.glob("compression.*")} == {
        "compression.json",
        "compression.md",
        "compression.png",
    }
    again = plait("compress", run, "--out", out, code=2)
    assert "exists already" in again.err


def test_mistakes_are_told_before_any_work(plait: Callable, run: Path, tmp_path: Path) -> None:
    wrong = plait("compress", run, "--out", tmp_path / "x", "--int8", "int4", "--json", code=2)
    assert "it can be auto, nncf, onnx, none" in wrong.json["error"]["message"]
    assert not (tmp_path / "x").exists()
