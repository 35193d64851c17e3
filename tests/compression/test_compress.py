from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plait import api
from plait.compression.calibration import Judged, loss_between
from plait.compression.onnx_int8 import quantise_dynamically
from plait.compression.quantiser import drift
from plait.compression.report import markdown
from plait.core.errors import ModelError, UserError
from plait.models.store.storage import load_model
from plait.runtime import open_bundle
from plait.runtime.sessions import OnnxSession
from plait.training.recipe.recipe import read_run_recipe

FAST = {"samples": 16, "threads": 1}
LOOSE = {"max_recall_drop": 100.0, **FAST}
"""The first candidate is taken: towers of a few channels lose much in int8."""


@pytest.fixture(scope="module")
def bundles(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict]]:
    """By method the int8 bundle and its report."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for method in ("nncf", "onnx"):
        out = folder / method
        found[method] = out, api.compress(run, out=out, int8=method, **LOOSE)
    return found


@pytest.mark.parametrize("method", ["nncf", "onnx"])
def test_an_int8_bundle_runs_and_is_near_the_run(
    bundles: dict, method: str, run: Path, colours: Path
) -> None:
    out, report = bundles[method]
    bundle = open_bundle(out, engine="openvino" if method == "nncf" else "onnxruntime", threads=1)
    assert {chosen.precision for chosen in bundle.chosen.values()} == {"int8"}
    assert not list(out.glob("*.int8.*onnx.data"))
    pictures = [Image.open(colours / f"{k}.png") for k in range(8)]
    texts = ["red number 0", "a picture of blue, 2", "green"]
    expected = load_model(run).embed(pictures, texts)
    found = bundle.embed(pictures, texts)
    for name in ("image", "text"):
        np.testing.assert_allclose(np.linalg.norm(found[name], axis=1), 1, atol=1e-3)
        cosines = (expected[name] * found[name]).sum(axis=1)
        assert cosines.mean() > 0.9, (name, cosines)
    assert report["int8"] == method
    assert report["tried"][0]["int8"][0]["groups_in_float"] == {"image": [], "text": []}


@pytest.mark.parametrize("method", ["nncf", "onnx"])
def test_the_report_says_what_was_measured(bundles: dict, method: str) -> None:
    out, report = bundles[method]
    stored = json.loads((out / "compression.json").read_text())
    assert stored["ratios"] == json.loads(json.dumps(report["ratios"]))
    for side in ("before", "after"):
        assert set(report[side]["latency_ms"]["image"]) == {"1", "8", "32"}
        assert report[side]["peak_mib"] > 20
        assert report[side]["retrieval"]["text_to_image"]["R@1_low"] <= 100
    for name in ("image", "text"):
        assert 0.8 < report["cosine"][name]["least"] <= report["cosine"][name]["mean"] < 1
    graphs = sum(path.stat().st_size for path in out.glob("*.int8.*"))
    assert report["after"]["bytes"] == graphs
    page = (out / "compression.md").read_text()
    assert page == markdown(stored)
    assert "| latency, text, batch 32, ms |" in page
    assert (out / "compression.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "image.onnx").exists()  # the float graphs are not part of it


@pytest.mark.parametrize("method", ["nncf", "onnx"])
def test_answers_do_not_depend_on_company(bundles: dict, method: str) -> None:
    _, report = bundles[method]
    assert set(report["drift"]) == {"image", "text"}
    assert max(report["drift"].values()) <= 1e-4


def test_dynamic_scales_do(run: Path, colours: Path, tmp_path: Path) -> None:
    model = load_model(run)
    api.export(run, tmp_path / "float")
    file = tmp_path / "dynamic.onnx"
    quantise_dynamically(tmp_path / "float" / "image.onnx", file)
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["dynamic.onnx"]
    arrays = [np.asarray(Image.open(colours / f"{k}.png").convert("RGB")) for k in range(16)]
    pixels = np.stack([model.tower("image").encoder.preprocess(array) for array in arrays])
    pixels[0] //= 8  # a dark one, whose scale would be finer alone
    assert drift(OnnxSession(file, "int8", threads=1), [{"pixels": pixels}]) > 1e-3


def test_every_file_of_the_bundle_is_in_its_manifest(bundles: dict) -> None:
    out, _ = bundles["nncf"]
    named = set(json.loads((out / "manifest.json").read_text())["files"])
    assert named == {p.relative_to(out).as_posix() for p in out.rglob("*")} - {"manifest.json"}
    with pytest.raises(ModelError, match="is a bundle, for `plait serve`"):
        api.load(out)
    assert "parity" not in (out / "README.md").read_text()  # of float graphs, which are not there


def test_a_pruned_model_is_healed_and_becomes_a_run(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    report = api.compress(run, out=out, int8="none", prune=[0.1], heal_steps=4, **LOOSE)
    assert report["candidate"] == "pruned by 0.1"
    assert report["ratios"]["multiply_adds"] < 0.96
    assert report["after"]["bytes"] < report["before"]["bytes"]
    model = load_model(out)
    assert model.tower("image").encoder.spec()["family"] == "narrowed"
    assert read_run_recipe(out).stages[0].name == "heal"
    assert (out / "compression.md").is_file()
    found = model.embed(texts=["red"])["text"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_a_student_is_taught_and_quantised(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    report = api.compress(
        run,
        out=out,
        int8="nncf",
        students=["image=scratch/cnn"],
        overrides=["model.towers.image.options.widths=[4,6]", "stages.0.epochs=2"],
        **LOOSE,
    )
    assert report["candidate"] == "student image=scratch/cnn"
    assert report["ratios"]["multiply_adds"] < 1
    assert open_bundle(out, threads=1).dim == load_model(run).dim


def test_nothing_within_tolerance(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no candidate loses at most 0 points"):
        api.compress(
            run,
            out=tmp_path / "out",
            int8="none",
            students=["image=scratch/cnn"],
            overrides=[
                "model.towers.image.options.widths=[4,6]",
                "stages.0.epochs=1",
                "stages.0.optimiser.lr=1e-9",
            ],
            max_recall_drop=0.0,
            **FAST,
        )
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))  # nothing is left behind


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"int8": "int4"}, r"--int8 is 'int4'; it can be auto, nncf, onnx, none"),
        ({"int8": "none"}, "nothing to do"),
        ({"prune": [1.5]}, r"--prune 1\.5"),
        ({"max_recall_drop": -1.0}, "below 0"),
        ({"overrides": ["a=1"]}, "neither is given"),
        ({"students": ["pkg/nothing"]}, "no packaged encoder 'nothing'"),
    ],
)
def test_mistakes(run: Path, tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        api.compress(run, out=tmp_path / "out", **wrong, **FAST)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        api.compress(run, out=tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_lost_points_of_paired_queries_by_hand() -> None:
    """Of four texts two are lost and one is won, of two pictures one is lost: (25 + 50) / 2."""

    def judged(hits: list[float]) -> Judged:
        array = np.array(hits, dtype=np.float64)
        ways = {"t": {"R@1": 100 * array[:4].mean()}, "i": {"R@1": 100 * array[4:].mean()}}
        return Judged(ways, array, np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 0, 0, 1, 1]))

    lost = loss_between(judged([1, 1, 1, 0, 1, 1]), judged([0, 0, 1, 1, 0, 1]))
    assert lost["points"] == pytest.approx(37.5)
    assert lost["low"] <= 37.5 <= lost["high"]
    assert loss_between(judged([1, 0, 1, 0, 1, 0]), judged([1, 0, 1, 0, 1, 0])) == {
        "points": 0.0,
        "low": 0.0,
        "high": 0.0,
    }


def test_the_interval_of_a_loss_draws_whole_pictures_by_its_seed() -> None:
    """Of four pictures two lose all their queries: both ends are reached (1/16 each, above 2.5%)."""

    def between(lost: np.ndarray, cluster: np.ndarray, seed: int = 0) -> dict[str, float]:
        queries, way = len(lost), np.arange(len(lost)) % 2
        before, after = np.ones(queries), 1.0 - lost
        sides = (
            Judged({"both": {"R@1": 100 * hits.mean()}}, hits, cluster, way)
            for hits in (before, after)
        )
        return loss_between(*sides, seed=seed)

    cluster = np.repeat(np.arange(4), 50)
    found = between((cluster < 2).astype(float), cluster)
    assert found == {"points": 50.0, "low": 0.0, "high": 100.0}
    lost = (np.random.default_rng(0).random(400) < 0.3).astype(float)
    ends = [between(lost, np.arange(400), seed) for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]
