"""What questions should be answered with, and how well a model in training answers them.

Shape legend: n samples, B rows, A answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from plait.data.answers import AnswerSet
from plait.data.sample import Sample
from plait.evaluation.evaluate_answers import raw_answers
from plait.evaluation.vqa import vqa_accuracy
from plait.models.fusion_model import FusionModel
from plait.training.fusion_tasks import ANSWER, SCORES
from plait.training.precision import autocast
from plait.training.rows import Rows
from plait.training.supply import Supply
from plait.training.tasks import Task


class AnswerTargets:
    """What every sample should be answered with.

    Args:
        samples: questions about pictures.
        known: the answers to choose from.

    Raises:
        DataError: a sample without picture or question, by its row.
    """

    def __init__(self, samples: Sequence[Sample], known: AnswerSet) -> None:
        self.samples, self.known = samples, known
        self.labels = torch.tensor([known.label(sample) for sample in samples])

    def __call__(self, rows: Rows) -> Mapping[str, torch.Tensor]:
        """`SCORES` (B, A) and `ANSWER` (B,) of some rows."""
        scores = [self.known.targets(self.samples[i]) for i in rows.sample]
        return {
            SCORES: torch.from_numpy(np.stack(scores)),
            ANSWER: self.labels[torch.from_numpy(rows.sample)],
        }


class AnswerValidator:
    """Answers every question of a split and measures accuracy and loss.

    Args:
        model: what to measure.
        task: for the loss.
        supply: the split's rows in order.
        targets: of the split.
        metric: ``vqa.accuracy`` or ``loss``.
        device, dtype: to compute on and in.
    """

    def __init__(
        self,
        model: FusionModel,
        task: Task,
        supply: Supply,
        targets: AnswerTargets,
        *,
        metric: str = "vqa.accuracy",
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.task, self.supply, self.targets = model, task, supply, targets
        self.metric, self.dtype = metric, dtype
        self.device = device or torch.device("cpu")

    @torch.no_grad()
    def __call__(self) -> tuple[float, dict[str, Any]]:
        """(the watched value, higher is better; all metrics)."""
        predicted: list[str] = []
        losses, rows = 0.0, 0
        for batch in self.supply.epoch(0):
            moved = batch.to(self.device)
            with autocast(self.device, self.dtype):
                logits = self.model.answer(moved)
                losses += float(self.task.loss(moved).total) * len(batch)
            rows += len(batch)
            predicted += [self.targets.known.answers[i] for i in logits.argmax(dim=1).tolist()]
        given = [raw_answers(sample) for sample in self.targets.samples]
        accuracy = float(np.mean(vqa_accuracy(predicted, given))) * 100
        metrics = {"vqa": {"accuracy": accuracy}, "loss": losses / rows}
        return (-metrics["loss"] if self.metric == "loss" else accuracy), metrics  # type: ignore[operator]
