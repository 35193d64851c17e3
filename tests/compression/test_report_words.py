"""What a compression tells, from figures that are known; no model is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plait.compression.quantiser import Made
from plait.compression.report import markdown, rows
from plait.compression.search import Candidate
from plait.compression.settings import Settings
from plait.compression.sides import ratios
from plait.core.errors import MissingExtra, UserError

MIB = 2**20


def side(size: float, adds: dict[str, float], recall: float, **more: Any) -> dict[str, Any]:
    ways = {"R@1": recall, "queries": 1200, **more}
    return {
        "bytes": int(size * MIB),
        "multiply_adds": adds,
        "retrieval": {"text_to_image": ways, "image_to_text": {"R@1": recall / 2, "queries": 600}},
        "latency_ms": {"image": {"1": size / 4, "8": size}},
        "rows_per_second": {"image": {"1": 4000 / size, "8": 8000 / size}},
        "peak_mib": 10 * size,
        "load_seconds": size / 8,
    }


BEFORE = side(40, {"image": 3e6, "text": 5e6}, 80.0, **{"R@1_low": 75.0, "R@1_high": 84.5})
AFTER = side(10, {"image": 1e6, "text": 1e6}, 78.0)
REPORT: dict[str, Any] = {
    "run": "runs/mine",
    "candidate": "as it is",
    "int8": "onnx",
    "threads": 2,
    "before": BEFORE,
    "after": AFTER,
    "ratios": ratios(BEFORE, AFTER),
    "lost": {"points": 1.5, "low": -0.25, "high": 3.0},
    "max_recall_drop": 1.0,
    "cosine": {"image": {"mean": 0.99876, "least": 0.5}},
    "drift": {"image": 0.000123},
    "cautions": ["Few samples."],
    "tried": [
        {
            "name": "as it is",
            "multiply_adds": 8e6,
            "validation_recall": 70.0,
            "validation_lost": 0.0,
            "int8": [
                {
                    "groups_in_float": {"image": [3, 1], "text": [0]},
                    "groups": {"image": 5, "text": 4},
                    "bytes": int(2.5 * MIB),
                    "validation_recall": 69.0,
                    "validation_lost": 1.0,
                }
            ],
        },
        {"name": "cut", "multiply_adds": 4e6, "validation_recall": 71.0, "validation_lost": -1.0},
    ],
}


def test_ratios_by_hand() -> None:
    """10 of 40 MiB, 2 of 8 millions, four times the rows."""
    assert ratios(BEFORE, AFTER) == {
        "bytes": 0.25,
        "multiply_adds": 0.25,
        "rows_per_second": {"image": {"1": 4.0, "8": 4.0}},
    }


def test_rows() -> None:
    assert rows(REPORT) == [
        ("size of the weights, MiB", "40.0", "10.0", "0.250"),
        ("multiply-adds of a picture and a text, millions", "8", "2", "0.250"),
        ("recall@1, words to picture, %", "80.0 (75.0 to 84.5)", "78.0", ""),
        ("recall@1, picture to words, %", "40.0", "39.0", ""),
        ("latency, image, batch 1, ms", "10.0", "2.5", "4.00 times the rows a second"),
        ("latency, image, batch 8, ms", "40.0", "10.0", "4.00 times the rows a second"),
        ("peak memory of the process, MiB", "400", "100", "0.25"),
        ("from start to first rows, s", "5.00", "1.25", ""),
    ]


def test_the_page() -> None:
    told = markdown(REPORT)
    assert told.startswith(
        "# Compression\n\n`runs/mine`: as it is, int8 for ONNX Runtime. Before: torch float32; 2 "
        "threads on both sides. Recall of 1,200 texts and 600 pictures with 95% intervals, on the "
        "test split; the choice was made on the validation split.\n"
    )
    for line in (
        "| multiply-adds of a picture and a text, millions | 8 | 2 | 0.250 |",
        "Recall@1 lost, mean of both ways: 1.50 points (95% interval of paired queries -0.25 to "
        "3.00); up to 1 were allowed on the validation split.",
        "**Few samples.**",
        "Cosine of a row before to the same one after, mean (least): image 0.9988 (0.5000).",
        "Change of a cosine by what else is in a batch, at most: image 1.2e-04.",
        "| as it is | float | 8 |  | 70.00 | +0.00 |",
        "| as it is | 3 of 9 groups of layers in float | 8 | 2.5 | 69.00 | +1.00 |",
        "| cut | float | 4 |  | 71.00 | -1.00 |",
    ):
        assert line in told.splitlines(), line
    bare = {**REPORT, "int8": "none", "cosine": {}, "lost": {"points": 1.5}}
    del bare["drift"]
    told = markdown(bare)
    assert "as it is, float32. Before" in told and "Cosine of a row" not in told
    assert "1.50 points; up to 1" in told and "Change of a cosine" not in told


def test_a_candidate_for_the_report(tmp_path: Path) -> None:
    files = {}
    for name, sizes in (("image", (100, 150)), ("text", (50,))):
        files[name] = [tmp_path / f"{name}{number}" for number in range(len(sizes))]
        for file, size in zip(files[name], sizes, strict=True):
            file.write_bytes(bytes(size))
    made = {name: Made(first, tuple(parts)) for name, (first, *parts) in files.items()}
    found = Candidate({"image": (2, 0), "text": ()}, made, 71.23456, -0.98765)
    assert found.to_json({"image": 5, "text": 4}) == {
        "bytes": 300,
        "groups_in_float": {"image": [2, 0], "text": []},
        "groups": {"image": 5, "text": 4},
        "validation_recall": 71.235,
        "validation_lost": -0.988,
    }


@pytest.mark.parametrize(
    ("int8", "installed", "found"),
    [
        ("auto", "nncf openvino onnxruntime", "nncf"),
        ("auto", "openvino onnxruntime", "onnx"),
        ("auto", "nncf onnxruntime", "onnx"),
        ("onnx", "nncf openvino onnxruntime", "onnx"),
        ("nncf", "nncf openvino", "nncf"),
        ("nncf", "openvino onnxruntime", "int8 for OpenVINO"),
        ("nncf", "nncf onnxruntime", "openvino"),
        ("onnx", "nncf openvino", "onnxruntime"),
        ("auto", "openvino", "nncf or onnxruntime"),
    ],
)
def test_the_first_whose_libraries_are_there(
    int8: str, installed: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {name: object() for name in installed.split()}
    monkeypatch.setattr("plait.compression.settings.find_spec", there.get)
    if found in ("nncf", "onnx"):
        assert Settings(int8=int8).method() == found
        Settings(int8=int8).check()
    else:
        with pytest.raises(MissingExtra, match=found):
            Settings(int8=int8).check()


def test_settings_out_of_range() -> None:
    for wrong, message in (
        ({"prune": (0.0,)}, "--prune 0: give the share that goes, between 0 and 1"),
        ({"prune": (0.5, 1.0)}, "--prune 1: give"),
        ({"max_recall_drop": -0.5}, r"--max-recall-drop -0\.5 is below 0"),
        ({"samples": 0}, "--samples is at least 1, and --heal-steps at least 0"),
        ({"heal_steps": -1}, "--heal-steps at least 0"),
        ({}, "nothing to do: --int8 none"),
        ({"overrides": ("a=1",), "int8": "onnx"}, "--set changes the training of --prune"),
        ({"int8": "ncnf"}, "--int8 is 'ncnf'; it can be auto, nncf, onnx, none.*nncf"),
    ):
        with pytest.raises(UserError, match=message):
            Settings(**{"int8": "none", **wrong}).check()  # type: ignore[arg-type]
    Settings(int8="none", prune=(0.5,), max_recall_drop=0.0, heal_steps=0, samples=1).check()
    Settings(int8="none", students=("a/b",), overrides=("a=1",)).check()
