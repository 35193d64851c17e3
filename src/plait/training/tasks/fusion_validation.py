"""Measuring a fusion model on a split while it trains, task by task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.core.batch import Batch
from plait.data.vqa.answers import stated_answers
from plait.evaluation.metrics.vqa import vqa_accuracy
from plait.models.fusion.model import FusionModel
from plait.objectives.matching.matching import random_pairing
from plait.training.batches.supply import Supply
from plait.training.loop.precision import autocast
from plait.training.tasks.fusion_tasks import LABEL, FusionTask, paired
from plait.training.tasks.targets import Targets


class FusionValidator:
    """Accuracy of every task with labels, and the loss.

    Random numbers (hidden words, wrong pairs) are the same in every evaluation, and training's own
    are left as they were.

    Args:
        model: what to measure.
        task: the objectives of the stage.
        supply: the split's rows in order.
        targets: of the split.
        metric: the watched value, see `plait.training.recipe.combinations.METRICS`.
        device, dtype: to compute on and in.
    """

    def __init__(
        self,
        model: FusionModel,
        task: FusionTask,
        supply: Supply,
        targets: Targets,
        *,
        metric: str = "vqa.accuracy",
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.task, self.supply, self.targets = model, task, supply, targets
        self.metric, self.dtype = metric, dtype
        self.device = device or torch.device("cpu")

    def __call__(self) -> tuple[float, dict[str, Any]]:
        """(the watched value, higher is better; all metrics)."""
        names = {objective.name for objective in self.task.objectives}
        right: dict[str, list[np.ndarray]] = {"classification": [], "match": []}
        predicted: list[int] = []
        losses: list[tuple[float, int]] = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batch in self.supply.epoch(0):
                moved = batch.to(self.device)
                with autocast(self.device, self.dtype):
                    losses.append((self.task.weighed(moved), len(batch)))
                    if "answer" in names:
                        predicted += self.model.answer(moved.of("answer")).argmax(dim=1).tolist()
                    if "classify" in names:
                        right["classification"].append(self._classified(moved.of("classify")))
                    for name in sorted(names & {"match", "wra"}):
                        right["match"].append(self._matched(moved.of(name)))
        metrics: dict[str, Any] = {
            "loss": sum(loss * rows for loss, rows in losses) / sum(rows for _, rows in losses)
        }
        for name, parts in right.items():
            if parts:
                metrics[name] = {"accuracy": 100 * float(np.concatenate(parts).mean())}
        if predicted:
            metrics["vqa"] = {"accuracy": self._answered(predicted)}
        return watched(metrics, self.metric), metrics

    def _answered(self, predicted: list[int]) -> float:
        labels = self.model.labels("answer")
        given = [stated_answers(sample) for sample in self.targets.samples]
        judged = [number for number, answers in enumerate(given) if answers]
        accuracy = vqa_accuracy([labels[predicted[i]] for i in judged], [given[i] for i in judged])
        return 100 * float(accuracy.mean())

    def _classified(self, batch: Batch) -> np.ndarray:
        logits: Tensor = self.model.head("classify")(self.model.vector(self.model.fuse(batch)))
        known = batch.targets[LABEL] >= 0
        return (logits.argmax(dim=1) == batch.targets[LABEL])[known].float().cpu().numpy()

    def _matched(self, batch: Batch) -> np.ndarray:
        pairing = random_pairing(batch.groups, generator=torch.default_generator)
        fused = self.model.fuse(paired(batch, pairing))
        logits: Tensor = self.model.head("match")(self.model.vector(fused))
        return (logits.argmax(dim=1).bool() == pairing.matched).float().cpu().numpy()


def watched(metrics: dict[str, Any], name: str) -> float:
    """One value by its name; higher is better (the loss is negated)."""
    if name == "loss":
        return -float(metrics["loss"])
    kind, _, measure = name.partition(".")
    return float(metrics[kind][measure])
