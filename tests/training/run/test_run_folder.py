"""A run folder and its saver by themselves: what begins, what is cut, what is counted on."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from plait.core.clock import Clock
from plait.core.errors import DataError, ModelError, RecipeError
from plait.data import PairDataset, open_dataset
from plait.data.base.sample import Sample
from plait.training.build.build import build_model
from plait.training.loop.loop import Position
from plait.training.recipe.schema import Recipe
from plait.training.run import saving
from plait.training.run.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from plait.training.run.run_folder import RunFolder, flat
from plait.training.run.saving import Saver
from plait.training.run.stage_data import StageData

Tiny = Callable[..., Recipe]
SOURCE = {"source": "a", "samples": 64, "fingerprint": "one"}
RECORD = {"kind": "update", "stage": "all", "step": 1, "run_step": 1}


def test_the_log_is_cut_back_to_a_moment(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.log_size() == 0 and list(folder.records()) == []
    folder.cut_log(0)  # nothing to cut, and nothing made
    assert not list(tmp_path.iterdir())
    third = 1 / 3
    folder.log({**RECORD, "loss": third, "parts": {"a": third, "b": "words"}})
    size = folder.log_size()
    written = (tmp_path / "metrics.jsonl").read_text()
    assert size == len(written) and written.endswith("\n")
    folder.log({**RECORD, "run_step": 2})
    folder.close()
    again = RunFolder(tmp_path)
    assert again.log_size() == (tmp_path / "metrics.jsonl").stat().st_size > size
    first = {**RECORD, "loss": 0.3333333, "parts": {"a": 0.3333333, "b": "words"}}
    assert list(again.records()) == [first, {**RECORD, "run_step": 2}]
    again.cut_log(size)
    assert list(again.records()) == [first]
    again.log({**RECORD, "run_step": 3})
    assert [one["run_step"] for one in again.records()] == [1, 3]
    again.close()


def test_the_events_are_the_figures_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures by their path; where in the run they were is no figure, but is one inside."""
    drawn: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, path: str, purge_step: int) -> None:
            assert (path, purge_step) == (str(tmp_path / "events"), 7)

        def add_scalar(self, *what: Any) -> None:
            drawn.append(what)

        def close(self) -> None:
            drawn.append(("closed", 0.0, 0))

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Writer)
    folder = RunFolder(tmp_path)
    where = {"kind": "update", "stage": "all", "step": 3, "run_step": 7, "epoch": 2, "rows": 8}
    folder.log({**where, "loss": 2, "rank": {"image": {"rows": 4.5}}, "note": "none"})
    folder.log({**where, "run_step": 8, "loss": 1.5})
    folder.close()
    folder.close()
    assert drawn == [
        ("update/loss", 2.0, 7),
        ("update/rank/image/rows", 4.5, 7),
        ("update/loss", 1.5, 8),
        ("closed", 0.0, 0),
    ]


def test_a_folder_begins_once(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RecipeError, match=f"no run in {run} to resume.*--resume auto"):
        RunFolder(run).begin(tiny(), SOURCE, resume=True)
    assert not run.exists()
    folder = RunFolder(run)
    assert folder.status() is None
    assert folder.begin(tiny(), SOURCE, resume="auto")
    assert folder.status() == "running"
    folder.close()
    told = json.loads((run / "versions.json").read_text())
    assert told["numpy"] == np.__version__ and told["plait"] and told["threads"] == 1
    (run / ".status.json.tmp").write_text("a kill in the first moment leaves this")
    # Stopped before there was anything to keep: begun anew, whatever is asked.
    for resume in (False, True, "auto"):
        again = RunFolder(run)
        assert again.begin(tiny(), SOURCE, resume=resume)
        again.close()
    (run / "status.json").unlink()
    third = RunFolder(run)
    assert third.begin(tiny(), SOURCE, resume=False)
    third.set_status("finished")
    third.close()
    assert RunFolder(run).begin(tiny(), SOURCE, resume="auto") is False
    with pytest.raises(RecipeError, match="is finished: there is nothing to resume"):
        RunFolder(run).begin(tiny(), SOURCE, resume=True)
    with pytest.raises(RecipeError, match="holds a finished run, which is not overwritten"):
        RunFolder(run).begin(tiny(), SOURCE, resume=False)
    with pytest.raises(RecipeError, match=r"with another recipe: seed was 0 and is 1"):
        RunFolder(run).begin(tiny("seed=1"), SOURCE, resume="auto")


def test_other_content_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is a folder with other content: take another --out"):
        RunFolder(tmp_path).begin(tiny(), SOURCE, resume=False)
    with pytest.raises(RecipeError, match="is a folder with other content"):
        RunFolder(tmp_path / "mine.txt").begin(tiny(), SOURCE, resume=False)
    assert [path.name for path in tmp_path.iterdir() if path.name != "tiny.yaml"] == ["mine.txt"]


def test_a_stopped_run_goes_on_with_the_recipe_it_began_with(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = RunFolder(run)
    folder.begin(tiny(), SOURCE, resume=False)
    folder.close()
    write_checkpoint(run, Checkpoint(3, {}, {}), keep=2)
    with (
        closing(RunFolder(run)) as again,
        pytest.raises(RecipeError, match="holds a run that was stopped: add --resume"),
    ):
        again.begin(tiny(), SOURCE, resume=False)
    other = tiny("checkpoints.keep=9")
    for resume in (True, "auto"):
        with closing(RunFolder(run)) as going:
            assert going.begin(other, SOURCE, resume=resume)  # how often it saves teaches nothing
    with (
        closing(RunFolder(run)) as changed,
        pytest.raises(RecipeError, match=r"stages\.0\.epochs was 2 and is 3"),
    ):
        changed.begin(tiny("stages.0.epochs=3"), SOURCE, resume=True)


def test_a_recipe_as_names_and_values(tiny: Tiny) -> None:
    found = flat(tiny())
    assert found["stages.0.epochs"] == 2 and found["stages.0.name"] == "all"
    assert found["model.towers.image.options.widths.1"] == 8
    assert found["stages.0.train.image.encoder.mode"] == "full"
    assert found["evaluation.test"] is None
    assert not any(isinstance(value, dict) and value for value in found.values())


def saver(tiny: Tiny, colours: Path, run: Path, *overrides: str, main: bool = True) -> Saver:
    recipe = tiny(*overrides)
    data = StageData(recipe, open_dataset(str(colours)), Clock(), Accelerator(cpu=True))
    return Saver(
        recipe, build_model(recipe, list(data.texts())), RunFolder(run), {"data": 1.0}, main=main
    )


def test_when_to_save(
    tiny: Tiny, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By updates or by seconds, whatever comes first; helpers never."""
    now = [100.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    overrides = ("checkpoints.steps=4", "checkpoints.seconds=60")
    first = saver(tiny, colours, tmp_path, *overrides)
    helper = saver(tiny, colours, tmp_path, *overrides, main=False)
    assert [step for step in range(1, 10) if first.due(step)] == [4, 8]
    now[0] = 159.9
    assert not first.due(1)
    now[0] = 160.0
    assert first.due(1) and not helper.due(1) and not helper.due(4)
    helper.save_between(Position(run_step=1))
    assert helper.find() is None and not (tmp_path / "checkpoints").exists()
    first.save_between(Position(run_step=1))
    assert not first.due(1)  # the seconds begin anew


def test_what_is_found_to_go_on_from(tiny: Tiny, colours: Path, tmp_path: Path) -> None:
    first = saver(tiny, colours, tmp_path)
    log = tmp_path / "metrics.jsonl"
    log.write_text("a run that was killed before its first checkpoint\n")
    assert first.find() is None and log.read_text() == ""
    log.write_text("ten bytes\n")
    first.seconds |= {"train": 8.0, "evaluate": 2.0}
    first.save_between(Position(stage=1, run_step=5, best=0.5))
    with log.open("a") as file:
        file.write("after it\n")
    again = saver(tiny, colours, tmp_path)
    again.seconds["evaluate"] = 0.25
    found = again.find()
    assert found is not None and found.state["position"]["best"] == 0.5
    assert log.read_text() == "ten bytes\n"
    # What was spent is added to; the data have just been opened again, and count once.
    assert again.seconds == {"data": 1.0, "train": 8.0, "evaluate": 2.25}
    again.started_from = "other weights"
    with pytest.raises(ModelError, match="the pretrained weights have changed since the run"):
        again.find()
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert read_checkpoint(path).step == 5


def stage_data(tiny: Tiny, samples: list[Sample]) -> StageData:
    splits = ["validation" if one.id == "held" else "train" for one in samples]
    dataset = PairDataset(samples, "made", assigned=splits)
    return StageData(tiny(), dataset, Clock(), Accelerator(cpu=True))


def test_samples_that_take_no_part_are_counted_and_one_text_is_refused(
    tiny: Tiny, colours: Path
) -> None:
    every = open_dataset(str(colours)).samples[:6]
    alone = [Sample("x", "row x", None, ("no picture",)), Sample("y", "row y", every[0].image)]
    data = stage_data(tiny, [*every, *alone])
    assert data.notes == [
        "2 samples of the train split lack a picture or a text and take no part.",
        "The validation split is empty: the last weights are kept, and nothing stops early.",
    ]
    assert len(data.training) == 6
    whole = [Sample("held", "row", every[0].image, ("held out",)), *every]
    assert stage_data(tiny, whole).notes == []
    with pytest.raises(DataError, match="no pair to train on in the train split; 2 samples"):
        stage_data(tiny, alone)
    same = [Sample(f"{n}", "row", one.image, ("The  same",)) for n, one in enumerate(every)]
    with pytest.raises(DataError, match="6 pairs and one text: all of them read 'The  same'"):
        stage_data(tiny, same)
    grouped = [Sample(one.id, "row", one.image, one.texts, group="g") for one in every]
    with pytest.raises(DataError, match="one group: all of them show the same thing"):
        stage_data(tiny, grouped)
