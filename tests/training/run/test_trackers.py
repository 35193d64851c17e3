"""Curves at Weights & Biases and MLflow, against doubles of both libraries."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from plait.core.errors import MissingExtra, UserError
from plait.training.recipe.schema import Recipe
from plait.training.run.run import train
from plait.training.run.run_folder import RunFolder, _scalars
from plait.training.run.trackers import checked_trackers


class Double(ModuleType):
    """Takes what both libraries' calls give it, in order."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args[0] if args and not options else (args, options)))
            return SimpleNamespace(
                id="run-7",
                info=SimpleNamespace(run_id="run-7"),
                log=getattr(self, "log"),  # noqa: B009
                finish=getattr(self, "finish"),  # noqa: B009
            )

        return call

    def named(self, name: str) -> list[Any]:
        return [given for called, given in self.calls if called == name]


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> dict[str, Double]:
    found = {name: Double(name) for name in ("wandb", "mlflow")}
    for name, double in found.items():
        monkeypatch.setitem(sys.modules, name, double)
    return found


def test_every_record_goes_to_both_and_a_resumed_run_goes_on(
    tiny: Callable[..., Recipe], doubles: dict[str, Double], tmp_path: Path
) -> None:
    train(tiny(), out=tmp_path / "run", log=["wandb", "mlflow", "tensorboard", "wandb"])
    records = list(RunFolder(tmp_path / "run").records())
    wandb, mlflow = doubles["wandb"], doubles["mlflow"]
    for sent in (wandb.named("log"), mlflow.named("log_metrics")):
        assert len(sent) == len(records) > 2
        for record, (args, options) in zip(records, sent, strict=True):
            assert options == {"step": record["run_step"]}
            wanted = {f"{record['kind']}/{name}": v for name, v in _scalars(record)}
            assert args[0] == pytest.approx(wanted, rel=1e-6)
    ((_, begun),) = wandb.named("init")
    assert begun["config"]["stages.0.epochs"] == 2
    assert (begun["name"], begun["id"]) == ("run", None)
    assert wandb.calls[-1][0] == "finish"
    assert mlflow.calls[-1][0] == "end_run"
    assert mlflow.named("log_params")[0]["stages.0.epochs"] == "2"
    kept = json.loads((tmp_path / "run" / "trackers.json").read_text())
    assert kept == {"wandb": "run-7", "mlflow": "run-7"}
    again = RunFolder(tmp_path / "run", ["wandb", "mlflow"])
    again.log(records[-1])
    again.close()
    assert wandb.named("init")[-1][1]["id"] == "run-7"
    assert mlflow.named("start_run")[-1][1]["run_id"] == "run-7"
    assert len(mlflow.named("log_params")) == 1


def test_unknown_and_missing_ones_are_named_before_anything_is_written(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="did you mean 'wandb'"):
        checked_trackers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"--log mlflow needs mlflow.*\[mlflow\]"):
        train(tiny(), out=tmp_path / "run", log=["mlflow"])
    assert not (tmp_path / "run").exists()
