"""Whole runs on tiny pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from plait.core.errors import DataError, Interrupted, ModelError, RecipeError, UserError
from plait.core.files import read_json
from plait.core.lock import FolderLock
from plait.data import open_dataset
from plait.encoders.scratch.text import TransformerEncoder
from plait.models.store.storage import load_model
from plait.training.batches.features import frozen_features
from plait.training.batches.material import material_of
from plait.training.build.build import build_model
from plait.training.recipe.schema import Recipe
from plait.training.run.run import read_result, train
from plait.training.run.run_folder import RunFolder
from plait.training.run.stages import StageRunner
from plait.training.run.watch import Recorder

Tiny = Callable[..., Recipe]

TWO_STAGES = (
    "stages=["
    "{name: first, train: {image.encoder: full, text.encoder: full}, epochs: 1, batch_size: 16,"
    " precision: float32, ema: 0.9},"
    "{name: second, train: {image.encoder: {mode: lora, rank: 2}, text.encoder: frozen},"
    " epochs: 2, batch_size: 16, precision: float32, chunk: 7,"
    " features: {noise: 0.1, engine: torch, precision: float32}}]"
)


@pytest.fixture(autouse=True)
def own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    if (
        request.node.name != "test_a_run_folder_has_everything"
    ):  # drawing takes longer than training
        monkeypatch.setattr("plait.training.run.run.write_report", lambda *run, **told: None)


def stop_after(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """The next run is asked to stop after so many updates."""
    done = []
    updated = Recorder.updated

    def count(self: Recorder, *told: Any) -> None:
        done.append(1)
        updated(self, *told)

    monkeypatch.setattr(Recorder, "updated", count)
    monkeypatch.setattr(StageRunner, "_agreed", lambda self, request: lambda: len(done) >= updates)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(left: Path, right: Path) -> bool:
    return (left / "model.safetensors").read_bytes() == (right / "model.safetensors").read_bytes()


def test_a_run_folder_has_everything(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def evaluate(model: Any, dataset: Any) -> dict[str, Any]:
        assert not model.training
        return {"retrieval": {}, "samples": len(dataset)}

    result = train(tiny("evaluation.test=test"), out=out, evaluate=evaluate)
    names = {path.name for path in out.iterdir()}
    assert names >= {"recipe.yaml", "model.safetensors", "model.json", "metrics.jsonl", "report.md"}
    assert names >= {
        "report.json",
        "report.html",
        "curves.png",
        "checkpoints",
        "data.json",
        "versions.json",
        "status.json",
    }
    assert list((out / "events").glob("events.out.tfevents.*"))
    assert read_json(out / "data.json")["samples"] == 64
    assert read_json(out / "versions.json")["threads"] == 1
    told = read_result(out)
    assert told["split"] == "test"
    assert told["samples"] == read_json(out / "data.json")["splits"]["test"]
    assert set(told["seconds"]) == {"data", "train", "evaluate"}
    assert result.metrics["samples"] == told["samples"]
    moved = tmp_path / "elsewhere"
    shutil.move(out, moved)
    assert load_model(moved).embed(texts=["red"])["text"].shape == (1, 8)


def test_records_of_every_update_and_evaluation(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(), out=tmp_path / "run")
    records = list(RunFolder(tmp_path / "run").records())
    updates = [record for record in records if record["kind"] == "update"]
    steps = len(updates) // 2
    assert [record["step"] for record in updates] == list(range(1, 2 * steps + 1))
    assert all(record["rows"] == 16 and record["grad_norm"] > 0 for record in updates)
    validations = [record for record in records if record["kind"] == "validation"]
    assert len(validations) == 2
    assert {"mean_recall", "loss", "train_loss", "rank", "retrieval"} <= set(validations[0])


def test_two_runs_are_equal_to_the_bit(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(), out=tmp_path / "a")
    train(tiny(), out=tmp_path / "b")
    train(tiny("seed=1"), out=tmp_path / "c")
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("stop", [1, 3, 4, 6, 8])
def test_stopped_and_resumed_is_equal_to_the_bit(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Across stages, moving averages, LoRA, gradient caching, cached features and noise."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny(TWO_STAGES), out=whole)
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        with pytest.raises(Interrupted, match=r"--out .*broken --resume"):
            train(tiny(TWO_STAGES), out=broken)
    train(tiny(TWO_STAGES), out=broken, resume=True)
    assert same(whole, broken)
    kept = [[r for r in RunFolder(run).records()] for run in (whole, broken)]
    assert kept[0] == kept[1]


def test_a_checkpoint_at_every_update_and_the_oldest_serves_too(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash of the machine: records are newer than the checkpoint."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipe = tiny("checkpoints={steps: 1, keep: 3}")
    train(recipe, out=whole)
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(Interrupted):
            train(recipe, out=broken)
    steps = sorted((broken / "checkpoints").iterdir())
    assert [path.name[-2:] for path in steps] == ["04", "05", "06"]
    for newer in steps[1:]:
        shutil.rmtree(newer)
    train(recipe, out=broken, resume=True)
    assert same(whole, broken)


def test_killed_before_the_first_checkpoint(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            train(tiny(), out=tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "checkpoints")
    train(tiny(), out=tmp_path / "broken", resume=True)
    train(tiny(), out=tmp_path / "whole")
    assert same(tmp_path / "whole", tmp_path / "broken")


def test_killed_after_the_last_stage(tiny: Tiny, tmp_path: Path) -> None:
    def fail(model: Any, dataset: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    recipe = tiny("evaluation.test=train")
    with pytest.raises(Interrupted, match="--resume"):
        train(recipe, out=tmp_path / "broken", evaluate=fail)
    train(recipe, out=tmp_path / "broken", resume=True, evaluate=lambda model, data: {})
    train(recipe, out=tmp_path / "whole", evaluate=lambda model, data: {})
    assert same(tmp_path / "whole", tmp_path / "broken")


def test_what_is_refused(
    tiny: Tiny, tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(RecipeError, match=r"no run in .* to resume"):
        train(tiny(), out=out, resume=True)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            train(tiny(), out=out)
    assert not (out / ".lock").exists()
    with pytest.raises(RecipeError, match="was stopped: add --resume"):
        train(tiny(), out=out)
    with pytest.raises(RecipeError, match=r"stages\.0\.epochs was 2 and is 3"):
        train(tiny("stages.0.epochs=3"), out=out, resume=True)
    fewer = tmp_path / "fewer"
    shutil.copytree(colours, fewer)
    lines = (fewer / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    (fewer / "metadata.jsonl").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"the data have changed .*64 samples then, 63 now"):
        train(tiny(f"data.source={fewer}"), out=out, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr("plait.training.run.saving.weights_fingerprint", lambda model: "others")
        with pytest.raises(ModelError, match="the pretrained weights have changed since the run"):
            train(tiny(), out=out, resume=True)
    train(tiny("checkpoints.keep=1"), out=out, resume=True)  # what may change
    with pytest.raises(RecipeError, match="finished run, which is not overwritten"):
        train(tiny(), out=out)
    with pytest.raises(RecipeError, match="nothing to resume"):
        train(tiny(), out=out, resume=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RecipeError, match="other content"):
        train(tiny(), out=other)


def test_the_same_call_again_and_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted, match="--resume auto"):
            train(tiny(), out=out, resume="auto")  # nothing is there yet
    made = train(tiny(), out=out, resume="auto").to_json()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert train(tiny(), out=out, resume="auto").to_json() == json.loads(json.dumps(made))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(RecipeError, match="seed was 0 and is 5"):
        train(tiny("seed=5"), out=out, resume="auto")


def test_nothing_is_lost_by_starting_over_before_the_first_checkpoint(
    tiny: Tiny, tmp_path: Path, colours: Path
) -> None:
    """A broken picture stops a run; once it is mended the same command works."""
    data, out = tmp_path / "pairs", tmp_path / "run"
    shutil.copytree(colours, data)
    for number in range(64):
        (data / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="is not a picture"):
        train(tiny(f"data.source={data}"), out=out)
    shutil.rmtree(data)
    shutil.copytree(colours, data)
    train(tiny(f"data.source={data}"), out=out)
    train(tiny(), out=tmp_path / "other")
    assert same(out, tmp_path / "other")
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "other/metrics.jsonl").read_bytes()


def test_two_runs_do_not_share_a_folder(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    held = FolderLock(out)
    held.acquire()
    with pytest.raises(UserError, match="another process is training into"):
        train(tiny(), out=out)
    held.release()
    train(tiny(), out=out)


def test_cached_pixels_change_nothing(tiny: Tiny, tmp_path: Path) -> None:
    augment = "stages.0.augment=[{kind: crop}, {kind: flip}]"
    train(tiny(augment, "data.texts=all"), out=tmp_path / "plain")
    train(tiny(augment, "data.texts=all", "data.cache_pixels=true"), out=tmp_path / "first")
    train(tiny(augment, "data.texts=all", "data.cache_pixels=true"), out=tmp_path / "second")
    assert list((tmp_path / "cache" / "pixels").iterdir())
    assert same(tmp_path / "plain", tmp_path / "first")
    assert same(tmp_path / "plain", tmp_path / "second")


def test_slots_hold_the_plain_picture_and_augmented_ones(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(
        TWO_STAGES.replace("{mode: lora, rank: 2}", "frozen").replace(
            "noise: 0.1", "slots: 3, augment: [{kind: erase, probability: 1.0, area: [0.3, 0.6]}]"
        )
    )
    model = build_model(recipe)
    material = material_of(open_dataset(str(recipe.data.source)))
    settings = recipe.stages[1].features
    rows = frozen_features(model, "image", material, settings, 0, training=True)
    again = frozen_features(model, "image", material, settings, 0, training=True)
    plain = frozen_features(model, "image", material, settings, 0, training=False)
    assert rows.shape[:2] == (64, 3)
    assert np.array_equal(rows, again)
    assert np.array_equal(rows[:, :1], plain)
    spread = np.abs(rows[:, 1:] - rows[:, :1]).max(axis=2)
    assert (spread > 1e-3).mean() > 0.9
    assert np.abs(rows[:, 1] - rows[:, 2]).max(axis=1).min() > 0
    train(recipe, out=tmp_path / "run")


def test_no_data_named(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --data PATH"):
        train(tiny("data.source=null"), out=tmp_path / "run")


def test_frozen_towers_are_encoded_once(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their weights do not move."""
    calls = []
    forward = TransformerEncoder.forward
    monkeypatch.setattr(
        TransformerEncoder, "forward", lambda self, inputs: calls.append(1) or forward(self, inputs)
    )
    stages = TWO_STAGES.replace("epochs: 1", "epochs: 2").replace("epochs: 2", "epochs: 9")
    result = train(tiny(stages, "evaluation.every=9"), out=tmp_path / "run")
    assert "text features" in result.seconds
    stages = [r for r in RunFolder(tmp_path / "run").records() if r["kind"] == "update"]
    second = sum(record["stage"] == "second" for record in stages)
    assert second > 20
    assert (
        len(calls) < second + 20
    )  # 27 in the first stage; 128 texts in batches of 64 for the second


def test_skipped_rows_are_told(tiny: Tiny, tmp_path: Path, colours: Path) -> None:
    broken = tmp_path / "pairs"
    shutil.copytree(colours, broken)
    for number in range(5, 10):
        (broken / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"metadata\.jsonl, row \d+: \d\.png: is not a picture"):
        train(tiny(f"data.source={broken}"), out=tmp_path / "fails")
    result = train(tiny(f"data.source={broken}", "data.on_bad_row=skip"), out=tmp_path / "run")
    assert result.skipped == 5
    noted = json.loads((tmp_path / "run" / "data.json").read_text(encoding="utf-8"))["skipped"]
    assert len(noted) == 5
    assert "5.png" in noted[0]["problem"]


def test_a_hot_learning_rate_ends_with_the_module_at_fault(tiny: Tiny, tmp_path: Path) -> None:
    from plait.training.loop.nan_origin import TrainingError

    hot = tiny("stages.0.optimiser.lr=1e30", "stages.0.schedule.warmup=0.0", "stages.0.clip=null")
    with pytest.raises(TrainingError, match=r"stopped being a number at update \d+ of stage 'all'"):
        train(hot, out=tmp_path / "run")
