"""A run becomes a bundle, and the bundle is measured, by the installed command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plait.models.store.storage import load_model
from plait.runtime import open_bundle


@pytest.fixture(scope="module")
def bundle(
    plait: Callable[..., object], run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    told = plait("export", run, "--out", out, "--name", "shapes", "--json").json
    assert told["kind"] == "alignment"
    assert told["bytes"] == sum((out / name).stat().st_size for name in told["files"])
    for row in told["parity"]:
        assert row["precision"] != "float32" or row["difference"] <= 1e-4
    return out


def test_the_bundle_sees_and_reads_as_the_run(bundle: Path, run: Path, photos: object) -> None:
    pictures = sorted(photos.folder.iterdir())[:6]
    texts = ["a red circle", "yellow", "somebody painted a bar with purple paint"]
    opened = open_bundle(bundle, precision="float32", threads=1)
    found, expected = opened.embed(pictures, texts), load_model(run).embed(pictures, texts)
    for name in ("image", "text"):
        cosines = (found[name] * expected[name]).sum(axis=1)
        assert cosines.min() >= 0.9999
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


def test_the_card_tells_of_the_data(bundle: Path) -> None:
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: plait")
    assert "# shapes" in card
    assert "## Training data" in card
    assert "recall@1 |" in card


def test_it_is_measured(plait: Callable[..., object], bundle: Path) -> None:
    options = ["--threads", 1, "--seconds", 0, "--batches", "1,2"]
    found = plait("bench", bundle, *options, "--precision", "float32", "--json").json
    assert {choice["engine"] for choice in found} == {"openvino", "onnxruntime"}
    assert all(len(choice["towers"]) == 2 for choice in found)


def test_mistakes_are_told(plait: Callable[..., object], bundle: Path, run: Path) -> None:
    again = plait("export", run, "--out", bundle, code=2)
    assert "exists already" in again.err
    extent = plait("export", run, "--out", bundle.parent / "b", "--parity", "all", code=2)
    assert "can be quick or full" in extent.err
    batches = plait("bench", bundle, "--batches", "many", "--json", code=2)
    assert "give numbers" in json.loads(batches.out)["error"]["message"]
