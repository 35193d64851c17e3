"""The parity report: what it compares, and that it finds what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.deployment.made import alignment_model

from plait.core.errors import PlaitError, UserError
from plait.core.files import new_folder
from plait.deployment.card import Origin
from plait.deployment.export import export_bundle, preprocessing
from plait.deployment.graphs import exportables
from plait.deployment.parity import (
    BATCHES,
    check_parity,
    checked_extent,
    grid,
    parity_report,
)
from plait.deployment.probe import Probe
from plait.models.alignment.alignment import AlignmentModel
from plait.runtime.manifest import Port, TowerEntry, read_manifest

TEXT = TowerEntry({"ids": Port("int64", ("batch", "length"))}, "embeddings", ())
IMAGE = TowerEntry({"pixels": Port("uint8", ("batch", 3, 8, 8))}, "embeddings", ())


@pytest.fixture(scope="module")
def model() -> AlignmentModel:
    return alignment_model()


@pytest.fixture(scope="module")
def folder(model: AlignmentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "small"
    origin = Origin(
        data={"source": "/home/me/pairs", "samples": 9, "texts": 12, "splits": {"train": 9}},
        report={"retrieval": {"text_to_image": {"R@1": 28.5, "R@1_low": 22.0, "R@1_high": 34.0}}},
    )
    export_bundle(model, out, name="small", origin=origin, parity="full")
    return out


def test_the_full_grid_is_every_batch_at_every_length() -> None:
    assert BATCHES == (1, 2, 3, 7, 16, 32)
    assert set(grid(TEXT, 9, "full")) == {(b, n) for b in BATCHES for n in range(1, 10)}
    assert grid(IMAGE, 0, "full") == grid(IMAGE, 0) == [(b, None) for b in BATCHES]


def test_the_quick_grid_has_every_length_and_every_batch() -> None:
    points = grid(TEXT, 60)
    assert {length for _, length in points} == set(range(1, 61))
    for telling in (1, 2, 3, 5, 8, 13, 21, 34, 55, 60):
        assert {batch for batch, length in points if length == telling} == set(BATCHES)
    assert len(points) == 50 + 10 * 6


def test_float32_graphs_follow_torch_everywhere(folder: Path) -> None:
    report = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
    assert report["extent"] == "full"
    rows = {(row["tower"], row["engine"], row["precision"]): row for row in report["rows"]}
    for engine in ("openvino", "onnxruntime"):
        assert rows["text", engine, "float32"]["points"] == 6 * 11
        assert rows["image", engine, "float32"]["points"] == 6
    for (_, _, precision), row in rows.items():
        if precision == "float32":
            assert row["difference"] <= 1e-5
            assert row["cobatch_difference"] <= 1e-5
            assert row["passed"] is True
        assert row["least_cosine"] > 0.99
    page = (folder / "parity.md").read_text(encoding="utf-8")
    assert "| text | onnxruntime | float32 | 66 |" in page
    assert "parity.json" in read_manifest(folder).files


def test_a_wrong_graph_is_found_at_its_place(folder: Path, model: AlignmentModel) -> None:
    towers = exportables(model)
    probe = Probe(*preprocessing(model))

    def wrong(tensors: dict[str, np.ndarray]) -> np.ndarray:
        rows = towers["text"](tensors)
        if tensors["ids"].shape[1] == 5:
            rows[2:, 3] += 3e-4
        return rows

    references = {"image": towers["image"], "text": wrong}
    report = parity_report(folder, references, probe, threads=1)
    for row in report["rows"]:
        if row["tower"] == "text" and row["precision"] == "float32":
            assert row["difference"] == pytest.approx(3e-4, rel=0.01)
            assert row["length"] == 5
            assert row["batch"] >= 3
            assert row["passed"] is False
    with pytest.raises(PlaitError, match=r"text graph in \w+ float32 differs .*length 5"):
        check_parity(report)


def test_rows_alone_are_without_padding(model: AlignmentModel) -> None:
    probe = Probe(*preprocessing(model))
    tensors = probe.tensors(TEXT.inputs, 32, 11)
    assert tensors["ids"].shape == (32, 11)
    lengths = tensors["mask"].sum(axis=1)
    assert lengths[0] == 11
    assert set(lengths) == set(range(1, 12))
    for row in (0, 1, 9):
        alone = probe.alone(tensors, row)
        assert alone["ids"].shape == (1, lengths[row])
        assert alone["mask"].all()
    assert len(np.unique(probe.tensors(IMAGE.inputs, 32, None)["pixels"], axis=0)) == 32


def test_the_card_tells_what_and_how_well(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| text to image, recall@1 | 28.5 (22.0 to 34.0) |" in card
    assert "pairs: 9 samples, 12 texts (9 train)" in card
    assert "/home/me" not in card
    script = (folder / "tensorrt" / "build.sh").read_text(encoding="utf-8")
    assert "NEEDS: an NVIDIA GPU" in script
    assert "--maxShapes=ids:32x11,mask:32x11" in script
    assert "--optShapes=pixels:8x3x32x32" in script


def test_nothing_is_overwritten_and_nothing_left_behind(
    model: AlignmentModel, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match="taken exists already"):
        export_bundle(model, tmp_path / "taken", name="x")
    with pytest.raises(RuntimeError, match="power cut"), new_folder(tmp_path / "new") as folder:
        (folder / "file").touch()
        raise RuntimeError("power cut")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]
    with pytest.raises(UserError, match="can be quick or full"):
        checked_extent("long")
