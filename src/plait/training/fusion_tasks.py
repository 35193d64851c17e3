"""Tasks of fusion models: every objective of a stage on one batch, added up by weight.

Shape legend: B rows, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from plait.core.batch import Batch
from plait.models.fusion_model import FusionModel
from plait.objectives.vqa import vqa_bce, vqa_ce, vqa_kl
from plait.training.tasks import TaskLoss

SCORES, ANSWER = "answer_scores", "answer"
"""Targets of a batch: (B, A) score of each answer; (B,) the row of the most frequent, or -100."""


@dataclass(frozen=True)
class Objective:
    """One objective of a fusion model and its weight in the sum.

    Attributes:
        name: as in a recipe.
        weight: its share in the sum of losses.
        loss: of ``answer``, see `plait.training.schema.Task`.
    """

    name: Literal["answer"] = "answer"
    weight: float = 1.0
    loss: Literal["ce", "bce", "kl"] = "ce"


class FusionTask:
    """The weighted sum of objectives, each with its own forward pass.

    Args:
        model: what is trained.
        objectives: at least one.
    """

    def __init__(self, model: FusionModel, objectives: Sequence[Objective]) -> None:
        assert objectives
        self.model, self.objectives = model, tuple(objectives)

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph."""
        total: Tensor | None = None
        parts: dict[str, Tensor] = {}
        for objective in self.objectives:
            loss = answer_loss(self.model.answer(batch), batch, objective.loss)
            parts[objective.name] = loss.detach()
            weighted = objective.weight * loss
            total = weighted if total is None else total + weighted
        assert total is not None
        return TaskLoss(total, parts)


def answer_loss(logits: Tensor, batch: Batch, kind: Literal["ce", "bce", "kl"]) -> Tensor:
    """The loss of (B, A) logits of answers.

    Args:
        logits: of the model.
        batch: with the targets `SCORES` and `ANSWER`.
        kind: which of the losses of `plait.objectives.vqa`.
    """
    if kind == "ce":
        return vqa_ce(logits, batch.targets[ANSWER])
    scores = batch.targets[SCORES].to(torch.promote_types(logits.dtype, torch.float32))
    return vqa_bce(logits, scores) if kind == "bce" else vqa_kl(logits, scores, normalise=True)
