"""When a run saves, what it saves, and how it goes on from there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from plait.core.errors import ModelError
from plait.models.store.files import weights_fingerprint
from plait.models.store.kinds import Model
from plait.training.build import build
from plait.training.loop.loop import Position, StageLoop, trained_tensors
from plait.training.loop.optimise import optimiser_tensors, restore_optimiser
from plait.training.recipe.schema import Recipe
from plait.training.run.checkpoint import Checkpoint, latest_checkpoint, write_checkpoint
from plait.training.run.run_folder import RunFolder
from plait.training.run.watch import Recorder


class Saver:
    """Writes and reads the checkpoints of a run.

    Args:
        recipe: how often, and which parts earlier stages trained.
        model: as built, before anything trained.
        folder: of the run.
        seconds: by step of the way, saved along and added to on going on.
        main: False in the helper processes of a distributed run, which write nothing.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        folder: RunFolder,
        seconds: dict[str, float],
        *,
        main: bool = True,
    ) -> None:
        self.recipe, self.model, self.folder = recipe, model, folder
        self.seconds, self.main = seconds, main
        self.started_from = weights_fingerprint(model)
        self._saved_at = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to save after update ``step`` of the run."""
        settings = self.recipe.checkpoints
        if not self.main:
            return False
        by_steps = settings.steps is not None and step % settings.steps == 0
        return by_steps or time.monotonic() - self._saved_at >= settings.seconds

    def save(self, loop: StageLoop) -> None:
        """A checkpoint in the middle of a stage."""
        tensors = self._model_tensors(trained_tensors(self.model), loop.position.stage)
        optimiser = optimiser_tensors(loop.updater.optimiser)
        tensors |= {f"optimiser/{name}": value for name, value in optimiser.items()}
        tensors |= {f"best/{name}": value for name, value in (loop.best or {}).items()}
        state: dict[str, Any] = {}
        if loop.average is not None:
            tensors |= {f"ema/{name}": value for name, value in loop.average.values.items()}
            state["ema_updates"] = loop.average.updates
        if isinstance(loop.watcher, Recorder):
            state["losses"] = loop.watcher.losses
        self._write(loop.position, tensors, state)

    def save_between(self, at: Position) -> None:
        """A checkpoint between two stages, or after the last."""
        self._write(at, self._model_tensors({}, at.stage), {})

    def find(self) -> Checkpoint | None:
        """Where to go on; the log is cut back to that moment.

        Raises:
            ModelError: the pretrained weights are others than when the run was started.
            DataError: a damaged checkpoint.
        """
        checkpoint = latest_checkpoint(self.folder.path)
        if checkpoint is None:
            if self.main:
                self.folder.cut_log(0)
            return None
        if checkpoint.state["started_from"] != self.started_from:
            raise ModelError(
                f"the pretrained weights have changed since the run {self.folder.path} was started: "
                "bring them back, or start a new run"
            )
        if self.main:
            self.folder.cut_log(checkpoint.state["log_bytes"])
        for name, seconds in checkpoint.state["seconds"].items():
            if name != "data":  # opened again just now
                self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        return checkpoint

    def load_model(self, checkpoint: Checkpoint) -> None:
        """The weights; the model must be prepared for the checkpoint's stage."""
        found = self.model.load_state_dict(checkpoint.under("model"), strict=False)
        assert not found.unexpected_keys, found.unexpected_keys

    def restore(self, loop: StageLoop, checkpoint: Checkpoint) -> None:
        """Everything of a loop but the model's weights and the position."""
        restore_optimiser(loop.updater.optimiser, checkpoint.under("optimiser"))
        loop.best = checkpoint.under("best") or None
        if loop.average is not None and "ema_updates" in checkpoint.state:
            loop.average.restore(checkpoint.under("ema"), checkpoint.state["ema_updates"])
        if isinstance(loop.watcher, Recorder):
            loop.watcher.losses = list(checkpoint.state.get("losses", []))

    def _model_tensors(self, trained: Mapping[str, Tensor], stage: int) -> dict[str, Tensor]:
        before = build.changed_before(self.recipe, stage)
        changed = build.changed_tensors(self.model, trained, before)
        return {f"model/{name}": value for name, value in changed.items()}

    def _write(self, at: Position, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        if not self.main:
            return
        state = {
            **state,
            "position": at.to_json(),
            "log_bytes": self.folder.log_size(),
            "seconds": dict(self.seconds),
            "started_from": self.started_from,
        }
        keep = self.recipe.checkpoints.keep
        write_checkpoint(self.folder.path, Checkpoint(at.run_step, tensors, state), keep=keep)
        self._saved_at = time.monotonic()
