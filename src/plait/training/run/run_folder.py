"""The run folder: everything needed to go on with a run or to use its result, movable as one."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from plait.core.errors import DataError, RecipeError
from plait.core.files import read_json, write_json, write_text
from plait.core.lock import NAME as LOCK
from plait.core.lock import FolderLock
from plait.training.recipe.recipe import RUN_RECIPE, resolved_yaml
from plait.training.recipe.schema import Recipe
from plait.training.run.checkpoint import checkpoints
from plait.training.run.trackers import Tracker, open_trackers

Resume = bool | Literal["auto"]
"""Whether to go on with a run; "auto": begin where nothing is yet, and leave a finished one as it is."""

LOG = "metrics.jsonl"
DATA = "data.json"
VERSIONS = "versions.json"
STATUS = "status.json"
REPORT = "report.json"
EVENTS = "events"
LIBRARIES = (
    "plait",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "accelerate",
    "numpy",
    "openvino",
)


class RunFolder:
    """Writes one run.

    Args:
        path: the folder; made when it is not there.
        trackers: further places for its curves, see `plait.training.run.trackers`.
    """

    def __init__(self, path: Path, trackers: Sequence[str] = ()) -> None:
        self.path = Path(path)
        self._names, self._trackers = tuple(trackers), list[tuple[str, Tracker]]()
        self._lock = FolderLock(self.path, "is training into")
        self._log: Any = None
        self._events: Any = None

    def begin(self, recipe: Recipe, data: Mapping[str, Any], *, resume: Resume) -> bool:
        """Starts a run, or checks that it may go on.

        Args:
            recipe: of the run.
            data: what ``data.json`` says.
            resume: False: there must be no run yet; True: there must be one to go on with; "auto":
                whatever there is of this run.

        Returns:
            Whether there is anything left to do: not in a finished run, with "auto".

        Raises:
            RecipeError: the folder holds a finished run, or an unfinished one and ``resume`` is
                off, or one with another recipe.
            UserError: another process is writing it.
            DataError: the data of an unfinished run have changed.
        """
        status = self.status()
        if status == "finished":
            if resume == "auto":
                self._check_unchanged(recipe, data)
                return False
            if resume:
                raise RecipeError(f"the run {self.path} is finished: there is nothing to resume")
            raise RecipeError(
                f"{self.path} holds a finished run, which is not overwritten: take another --out"
            )
        if status is None and not self._empty():
            raise RecipeError(f"{self.path} is a folder with other content: take another --out")
        if status is None and resume is True and not self.path.is_dir():
            raise RecipeError(
                f"there is no run in {self.path} to resume: leave --resume out, or give --resume auto"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        if status is not None and checkpoints(self.path):
            if not resume:
                raise RecipeError(
                    f"{self.path} holds a run that was stopped: add --resume to go on with it, or "
                    "take another --out"
                )
            self._check_unchanged(recipe, data)
            return True
        # New, or stopped before there was anything to keep.
        write_text(self.path / RUN_RECIPE, resolved_yaml(recipe))
        write_json(self.path / DATA, dict(data))
        write_json(self.path / VERSIONS, versions())
        self.set_status("running")
        return True

    def _empty(self) -> bool:
        """Whether nothing is there but what a run writes in its first moment."""
        if not self.path.is_dir():
            return not self.path.exists()
        started = (RUN_RECIPE, DATA, VERSIONS, STATUS)  # and temporary ones of the same
        names = [entry.name for entry in self.path.iterdir()]
        return all(
            n == LOCK or n in started or n.startswith(tuple(f".{s}." for s in started))
            for n in names
        )

    def _check_unchanged(self, recipe: Recipe, data: Mapping[str, Any]) -> None:
        from plait.training.recipe.recipe import read_run_recipe

        old, new = flat(read_run_recipe(self.path)), flat(recipe)
        changed = [k for k in {**old, **new} if old.get(k) != new.get(k) and not _may_change(k)]
        if changed:
            told = "; ".join(f"{k} was {old.get(k)!r} and is {new.get(k)!r}" for k in changed[:5])
            raise RecipeError(f"{self.path} was started with another recipe: {told}")
        before = read_json(self.path / DATA)
        if before["fingerprint"] != data["fingerprint"]:
            raise DataError(
                f"the data have changed since the run {self.path} was started ({before['samples']} "
                f"samples then, {data['samples']} now): bring them back, or start a new run",
                path=str(data["source"]),
            )

    def status(self) -> str | None:
        """``running``, ``finished``, or None where no run was begun."""
        path = self.path / STATUS
        return read_json(path)["status"] if path.is_file() else None

    def set_status(self, status: str) -> None:
        """Notes how far the run is."""
        write_json(self.path / STATUS, {"status": status})

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one record to ``metrics.jsonl`` and to TensorBoard."""
        if self._log is None:
            self._log = (self.path / LOG).open("a", encoding="utf-8")
        self._log.write(json.dumps(_plain(record), ensure_ascii=False) + "\n")
        self._tensorboard(record)
        self._track(record)

    def log_size(self) -> int:
        """Bytes in ``metrics.jsonl`` by now, all of them on their way to the disk."""
        if self._log is None:
            path = self.path / LOG
            return path.stat().st_size if path.exists() else 0
        self._log.flush()
        return self._log.tell()

    def cut_log(self, size: int) -> None:
        """Drops records written after a checkpoint that held ``size`` bytes."""
        path = self.path / LOG
        if path.exists():
            with path.open("r+b") as file:
                file.truncate(size)

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of ``metrics.jsonl``."""
        self.log_size()
        path = self.path / LOG
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line) for line in file)

    def _track(self, record: Mapping[str, Any]) -> None:
        if self._names and not self._trackers:
            from plait.training.recipe.recipe import read_run_recipe

            settings = flat(read_run_recipe(self.path))
            self._trackers = open_trackers(self._names, self.path, settings)
        values = {f"{record['kind']}/{name}": value for name, value in _scalars(record)}
        for _, tracker in self._trackers:
            tracker.log(values, record["run_step"])

    def _tensorboard(self, record: Mapping[str, Any]) -> None:
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.path / EVENTS), purge_step=record["run_step"])
        for name, value in _scalars(record):
            self._events.add_scalar(f"{record['kind']}/{name}", value, record["run_step"])

    def close(self) -> None:
        """Flushes and closes the log and the events; the folder is free again."""
        with ExitStack() as every:  # each of them, also where one fails: a full disk
            every.callback(self._lock.release)
            for _, tracker in self._trackers:
                every.callback(tracker.close)
            for file in (self._events, self._log):
                if file is not None:
                    every.callback(file.close)
            self._trackers, self._events, self._log = [], None, None


_NOT_DRAWN = ("kind", "stage", "step", "run_step", "epoch", "rows", "max_scale")


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not (prefix == "" and key in _NOT_DRAWN):
            yield f"{prefix}{key}", float(value)


def _plain(value: Any) -> Any:
    """Floats to seven digits: what float32 holds, at half the bytes."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _may_change(key: str) -> bool:
    """Keys that do not change what is learnt; of the data, the fingerprint is what counts."""
    return key.startswith(
        (
            "checkpoints.",
            "evaluation.test",
            "data.source",
            "data.root",
            "data.allow_outside",
            "data.encoding",
        )
    )


def flat(recipe: Recipe) -> dict[str, Any]:
    """A recipe as ``stages.0.epochs`` to value."""
    found: dict[str, Any] = {}

    def walk(value: Any, prefix: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{prefix}{key}.")
        elif isinstance(value, list) and value:
            for number, inner in enumerate(value):
                walk(inner, f"{prefix}{number}.")
        else:
            found[prefix[:-1]] = value

    walk(recipe.model_dump(mode="json"), "")
    return found


def versions() -> dict[str, Any]:
    """What the run was made with: libraries, python, machine, threads, time."""
    import torch

    found: dict[str, Any] = {}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = None
    return {
        **found,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
