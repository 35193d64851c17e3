"""Contrastive tasks: objectives between modalities, added up, over one pass of the towers.

What every task is, `plait.training.loop.task` says.

Shape legend: B rows, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, distributed

from plait.core.batch import Batch
from plait.objectives import info_nce, sigmoid_loss, softened_info_nce
from plait.training.loop.task import Embeddings, TaskLoss


@runtime_checkable
class Aligner(Protocol):
    """The model of a contrastive task (see `plait.models.alignment.alignment.AlignmentModel`)."""

    @property
    def scale(self) -> Any:
        """What multiplies a cosine to give a logit."""

    @property
    def bias(self) -> Any:
        """Of the sigmoid loss, or None."""

    @property
    def heads(self) -> int:
        """Blocks of equal length in each row, compared one by one."""

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """(B, D) unit rows by modality."""


@dataclass(frozen=True)
class Softening:
    """Arguments of `plait.objectives.softened_info_nce`; ``teacher`` is a modality."""

    teacher: str = "text"
    share: float = 0.3
    temperature: float = 0.1


@dataclass(frozen=True)
class Contrast:
    """One objective between two modalities.

    Attributes:
        objective: ``info_nce`` or ``sigmoid``.
        left: the modality whose rows ask under direction ``left``.
        right: the other one.
        direction: of InfoNCE, see `plait.objectives.contrastive.info_nce`.
        weight: share in the sum.
        soften: of InfoNCE; None for hard targets.
    """

    objective: Literal["info_nce", "sigmoid"] = "info_nce"
    left: str = "image"
    right: str = "text"
    direction: Literal["both", "left"] = "both"
    weight: float = 1.0
    soften: Softening | None = None

    @property
    def name(self) -> str:
        """For records: ``info_nce image-text``."""
        return f"{self.objective} {self.left}-{self.right}"


class ContrastiveTask:
    """Contrastive objectives, added up by weight, over one pass of the towers.

    Rows that show the same thing (equal ``batch.groups``) are positives of one another. A row that
    lacks a modality takes no part on that side.

    Args:
        model: gives unit rows, ``scale`` and (for the sigmoid) ``bias``.
        contrasts: the objectives.
        group: the processes whose rows make up one batch; None for one process alone.
    """

    def __init__(
        self,
        model: Aligner,
        contrasts: Sequence[Contrast] = (Contrast(),),
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        self.model, self.contrasts, self.group = model, tuple(contrasts), group

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Unit rows of every modality that an objective reads, in float32 or better."""
        rows = self.model.encode(batch)
        names = dict.fromkeys(name for c in self.contrasts for name in (c.left, c.right))
        return {
            name: rows[name].to(torch.promote_types(rows[name].dtype, torch.float32))
            for name in names
        }

    def loss_of_embeddings(self, embeddings: Embeddings, batch: Batch) -> TaskLoss:
        """The weighted sum of the objectives."""
        sides = {name: self._side(rows, batch, name) for name, rows in embeddings.items()}
        total: Tensor | None = None
        parts: dict[str, Tensor] = {}
        for contrast in self.contrasts:
            # An evaluation has embeddings alone, no teacher: its loss is that of hard targets.
            taught = (
                contrast.soften and "features" in batch.modalities[contrast.soften.teacher].tensors
            )
            if contrast.soften is None or not taught:
                loss = self._loss(contrast, sides[contrast.left], sides[contrast.right])
            else:
                loss = self._softened(contrast, contrast.soften, embeddings, batch)
            parts[contrast.name] = loss.detach()
            weighted = contrast.weight * loss
            total = weighted if total is None else total + weighted
        assert total is not None
        return TaskLoss(total, parts)

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph."""
        return self.loss_of_embeddings(self.embed(batch), batch)

    def _side(self, rows: Tensor, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
        """The rows that have this modality, and their group numbers."""
        present = batch.modalities[name].present
        if bool(present.all()):
            return rows, batch.groups
        return rows[present], batch.groups[present]

    def _loss(
        self, contrast: Contrast, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The mean of the losses of each head on its own (of an ensemble in one projection)."""
        heads = self.model.heads
        blocks = zip(_blocks(left[0], heads), _blocks(right[0], heads), strict=True)
        losses = [self._head(contrast, (a, left[1]), (b, right[1])) for a, b in blocks]
        return losses[0] if heads == 1 else torch.stack(losses).mean()

    def _softened(
        self, contrast: Contrast, soften: Softening, rows: Embeddings, batch: Batch
    ) -> Tensor:
        """Softened InfoNCE of the rows that have both modalities, the mean of the heads."""
        parts = batch.modalities
        both = parts[contrast.left].present & parts[contrast.right].present
        teacher = parts[soften.teacher].tensors["features"][both]
        sides = [
            _blocks(rows[name][both], self.model.heads) for name in (contrast.left, contrast.right)
        ]
        losses = [
            softened_info_nce(
                left,
                right,
                self.model.scale,
                teacher,
                batch.groups[both],
                share=soften.share,
                temperature=soften.temperature,
            )
            for left, right in zip(*sides, strict=True)
        ]
        return torch.stack(losses).mean()

    def _head(
        self, contrast: Contrast, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]
    ) -> Tensor:
        scale, ids = self.model.scale, (left[1], right[1])
        if contrast.objective == "sigmoid":
            return sigmoid_loss(left[0], right[0], scale, self.model.bias, *ids, group=self.group)
        return info_nce(
            left[0], right[0], scale, *ids, direction=contrast.direction, group=self.group
        )


def _blocks(rows: Tensor, heads: int) -> list[Tensor]:
    """(B, E) unit rows of ``heads`` equally long blocks to so many (B, E / heads) of unit rows."""
    if heads == 1:
        return [rows]
    return [block * math.sqrt(heads) for block in rows.chunk(heads, dim=1)]
