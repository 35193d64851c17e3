"""Where the curves of a run go besides its folder: Weights & Biases and MLflow.

TensorBoard's events are written into every run folder, so ``tensorboard`` asks for nothing more.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from plait.core.errors import MissingExtra, UserError, did_you_mean, shown
from plait.core.files import read_json, write_json

PROJECT = "plait"
KEPT = "trackers.json"
"""Of the run folder: by tracker the run's id there, so that a resumed run goes on with it."""
LONGEST = 500  # characters of a parameter that every MLflow server takes


@runtime_checkable
class Tracker(Protocol):
    """One service that draws curves."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Takes figures by name at an update of the run."""

    def close(self) -> None:
        """Sends what is left."""


class Wandb:
    """A run of Weights & Biases (online, or offline by ``WANDB_MODE``), files in the run folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        kept = _kept(folder, "wandb")
        self._run = wandb.init(
            project=PROJECT,
            name=folder.name,
            dir=str(folder),
            config=dict(settings),
            id=kept,
            resume="allow" if kept else None,
        )
        _keep(folder, "wandb", self._run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()


class Mlflow:
    """A run of MLflow, at the server that ``MLFLOW_TRACKING_URI`` names."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import mlflow

        kept = _kept(folder, "mlflow")
        self._mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=kept, run_name=None if kept else folder.name)
        if kept is None:
            mlflow.log_params({key: str(value)[:LONGEST] for key, value in settings.items()})
            _keep(folder, "mlflow", run.info.run_id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._mlflow.end_run()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "wandb": Wandb,
    "mlflow": Mlflow,
}
NAMES = ("tensorboard", *TRACKERS)


def checked_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers of these names, each once, without TensorBoard.

    Raises:
        UserError: an unknown name.
        MissingExtra: its library is not installed.
    """
    for name in names:
        if name not in NAMES:
            hint = did_you_mean(name, NAMES)
            raise UserError(f"--log is {', '.join(NAMES)}, not {shown(name)}{hint}")
    chosen = tuple(dict.fromkeys(name for name in names if name in TRACKERS))
    for name in chosen:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(name, name, f"--log {name}")
    return chosen


def open_trackers(
    names: Sequence[str], folder: Path, settings: Mapping[str, Any]
) -> list[tuple[str, Tracker]]:
    """The chosen trackers, each with its run begun or gone on with."""
    return [(name, TRACKERS[name](folder, settings)) for name in names]


def _kept(folder: Path, name: str) -> str | None:
    path = folder / KEPT
    found: str | None = read_json(path).get(name) if path.is_file() else None
    return found


def _keep(folder: Path, name: str, identity: str) -> None:
    path = folder / KEPT
    write_json(path, {**(read_json(path) if path.is_file() else {}), name: identity})
