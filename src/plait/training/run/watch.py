"""What the loop tells, as records in the run folder."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from plait.core.batch import Batch
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.kinds import Model
from plait.training.loop.loop import Position
from plait.training.loop.nan_origin import TrainingError, find_origin
from plait.training.loop.update import Updater, UpdateRecord
from plait.training.run.run_folder import RunFolder


class Recorder:
    """Writes one record an update and one an evaluation (see `plait.training.loop.health`).

    Args:
        folder: of the run; None in helper processes, which record nothing.
        stage: its name.
        model: for the logit scale.
        updater: for finding where a loss broke.
    """

    def __init__(
        self, folder: RunFolder | None, stage: str, model: Model, updater: Updater
    ) -> None:
        self.folder, self.stage, self.model, self.updater = folder, stage, model, updater
        self.losses: list[float] = []

    def updated(self, position: Position, record: UpdateRecord, factor: float) -> None:
        """Notes an update."""
        self.losses.append(record.loss)
        if self.folder is None:
            return
        self.folder.log(
            {
                "kind": "update",
                "stage": self.stage,
                "epoch": position.epoch,
                "step": position.step,
                "run_step": position.run_step,
                "rows": record.rows,
                "floor": record.floor,
                "loss": record.loss,
                "parts": dict(record.parts),
                "grad_norm": record.grad_norm,
                "part_norms": dict(record.part_norms),
                **self._scale(),
                "rate": factor,
            }
        )

    def _scale(self) -> dict[str, float | None]:
        """The logit scale and its bound, of models that have one."""
        if not isinstance(self.model, AlignmentModel):
            return {}
        return {"scale": float(self.model.scale.detach()), "max_scale": self.model.max_scale}

    def evaluated(self, position: Position, value: float, metrics: Mapping[str, Any]) -> None:
        """Notes an evaluation, with the mean training loss since the last."""
        losses, self.losses = self.losses, []
        if self.folder is None:
            return
        self.folder.log(
            {
                "kind": "validation",
                "stage": self.stage,
                "epoch": position.epoch,
                "step": position.step,
                "run_step": position.run_step,
                "train_loss": statistics.fmean(losses) if losses else None,
                **metrics,
            }
        )

    def failed(self, position: Position, batch: Batch, record: UpdateRecord) -> None:
        """Finds where it broke.

        Raises:
            TrainingError: always.
        """
        where = find_origin(self.model, self.updater, batch)
        what = "the gradient" if math.isfinite(record.loss) else "the loss"
        raise TrainingError(
            f"{what} stopped being a number at update {position.step + 1} of stage {self.stage!r}: "
            f"it began in {where}. Lower the learning rate or lengthen schedule.warmup, keep clip "
            "at 1.0, and try precision: float32; if it is the inputs, look at these rows with "
            "`plait data audit`."
        )
