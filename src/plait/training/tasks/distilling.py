"""Training under a teacher: its embeddings of the training pairs, and the task that learns them.

The teacher runs once, before the first update; its towers' outputs are kept in the cache of
features, so that another run finds them there. Where the student has features of several augmented
versions of a picture, the teacher sees the same versions (Beyer et al. 2022, "Knowledge
distillation: A good teacher is patient and consistent"); where the student's pictures are augmented
anew every epoch, the teacher sees them plain.

Legend: n samples, m texts, S versions, B rows, E features of the student's space, T of the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from plait.core.batch import Batch
from plait.core.errors import ModelError, RecipeError
from plait.core.modality import IMAGE, TEXT
from plait.engines.features import project
from plait.modalities.image.preprocess import ImagePreprocess
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.kinds import aligned
from plait.models.store.published import is_published, load_published
from plait.models.store.storage import load_model
from plait.objectives.contrastive.distillation import (
    affinity_mimicking,
    feature_mse,
    interactive_contrast,
)
from plait.training.batches.features import frozen_features
from plait.training.batches.material import Material
from plait.training.batches.rows import Rows
from plait.training.loop.task import Embeddings, TaskLoss
from plait.training.recipe.stage import Features, Stage, Task
from plait.training.tasks.tasks import ContrastiveTask

DISTIL = "distil"
PREFIX = "teacher_"  # of the teacher's rows among a batch's targets
SCALE = "teacher_scale"


@dataclass(frozen=True)
class Distillation:
    """What of a teacher is learned, each with its weight; see `plait.objectives.contrastive.distillation`.

    Attributes:
        mse: of `feature_mse`, the mean of both modalities.
        affinity: of `affinity_mimicking`.
        interactive: of `interactive_contrast`.
        weight: of them all.
    """

    mse: float = 1.0
    affinity: float = 1.0
    interactive: float = 0.0
    weight: float = 1.0

    @property
    def same_space(self) -> bool:
        """Whether the student's rows must be as long as the teacher's."""
        return self.mse > 0 or self.interactive > 0


class DistilTask:
    """A teacher's rows as targets, beside the contrastive objectives of a stage.

    Args:
        contrastive: gives the model's rows, and the objectives that are added.
        distillation: what is learned of the teacher.
        alone: the stage has no contrastive objective. ``contrastive`` then gives rows only.
    """

    def __init__(
        self, contrastive: ContrastiveTask, distillation: Distillation, *, alone: bool
    ) -> None:
        self.contrastive, self.distillation, self.alone = contrastive, distillation, alone

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """See `ContrastiveTask.embed`."""
        return self.contrastive.embed(batch)

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph."""
        return self.loss_of_embeddings(self.embed(batch), batch)

    def loss_of_embeddings(self, embeddings: Embeddings, batch: Batch) -> TaskLoss:
        """The weighted sum; rows that lack a modality have nothing to learn of the teacher."""
        own: Mapping[str, Tensor] = {}
        total = next(iter(embeddings.values())).new_zeros(())
        if not self.alone:
            hard = self.contrastive.loss_of_embeddings(embeddings, batch)
            total, own = hard.total, hard.parts
        parts = dict(own)
        for name, (weight, loss) in self._losses(embeddings, batch).items():
            total = total + self.distillation.weight * weight * loss
            parts[f"{DISTIL} {name}"] = loss.detach()
        return TaskLoss(total, parts)

    def _losses(self, rows: Embeddings, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        both = batch.modalities[IMAGE].present & batch.modalities[TEXT].present
        image, text = rows[IMAGE][both], rows[TEXT][both]
        teacher = {
            name: batch.targets[PREFIX + name][both].to(image.dtype) for name in (IMAGE, TEXT)
        }
        taught, scale = (teacher[IMAGE], teacher[TEXT]), self.contrastive.model.scale
        wanted, found = self.distillation, dict[str, tuple[float, Tensor]]()
        if wanted.mse:
            pairs = zip((image, text), taught, strict=True)
            both_sides = torch.stack([feature_mse(own, theirs) for own, theirs in pairs])
            found["mse"] = wanted.mse, both_sides.mean()
        if wanted.affinity:
            theirs = batch.targets[SCALE][0].to(image.dtype)
            loss = affinity_mimicking(image, text, scale, *taught, theirs)
            found["affinity"] = wanted.affinity, loss
        if wanted.interactive:
            ids = batch.groups[both]
            loss = interactive_contrast(image, text, scale, *taught, ids)
            found["interactive"] = wanted.interactive, loss
        return found


@dataclass(frozen=True)
class TeacherRows:
    """A teacher's unit rows of a split, as targets of its batches.

    Attributes:
        image: (n, S, T), version 0 the plain picture.
        text: (m, T).
        scale: of the teacher's logits.
    """

    image: Float[Tensor, "n S T"]
    text: Float[Tensor, "m T"]
    scale: float

    def __call__(self, rows: Rows) -> dict[str, Tensor]:
        """The teacher's (B, T) rows of a batch, and its scale (B,)."""
        sample, slot = torch.from_numpy(rows.sample), torch.from_numpy(rows.slot)
        return {
            PREFIX + IMAGE: self.image[sample, slot],
            PREFIX + TEXT: self.text[torch.from_numpy(rows.text)],
            SCALE: torch.full((len(rows.sample),), self.scale),
        }


def distil_of(stage: Stage) -> Task | None:
    """The task of a stage that names a teacher."""
    found = [task for task in stage.tasks if task.objective == DISTIL]
    return found[0] if found else None


def load_teacher(source: str, *, dim: int, task: Task) -> AlignmentModel:
    """The model of a run, or of a published checkpoint.

    Raises:
        ModelError: no model there, or one that does not embed pictures and texts.
        RecipeError: its space has another length than the student's, and the task compares rows.
    """
    path = Path(source)
    loaded = load_published(path) if is_published(path) else load_model(path)
    teacher = aligned(loaded, "a teacher")
    for name in (IMAGE, TEXT):
        if name not in teacher.modalities:
            raise ModelError(f"the teacher {source} embeds {teacher.modalities}, no {name}")
    if not isinstance(teacher.tower(IMAGE).encoder.preprocess, ImagePreprocess):
        raise ModelError(f"the teacher {source} reads regions, not pictures")
    if teacher.dim != dim and distillation_of(task).same_space:
        raise RecipeError(
            f"the teacher {source} has rows of {teacher.dim} features and the student of {dim}: set "
            f"model.dim to {teacher.dim}, or mse and interactive to 0 (affinity compares any two)"
        )
    return teacher


def distillation_of(task: Task) -> Distillation:
    """The weights of a task."""
    return Distillation(task.mse, task.affinity, task.interactive, task.weight)


def teacher_rows(
    teacher: AlignmentModel, material: Material, settings: Features, seed: int, *, versions: bool
) -> TeacherRows:
    """A teacher's rows of a split, its towers' outputs from the cache where they are there.

    Args:
        teacher: read only.
        material: the split.
        settings: of the student's features.
        seed: of their augmentation.
        versions: of each picture all that the settings name, not the plain one alone.

    Raises:
        DataError: a picture that cannot be used, with its row.
    """
    pictures = frozen_features(teacher, IMAGE, material, settings, seed, training=versions)
    texts = frozen_features(teacher, TEXT, material, settings, seed, training=versions)
    flat = project(teacher, IMAGE, pictures.reshape(-1, pictures.shape[-1]))
    image = torch.from_numpy(flat).view(*pictures.shape[:2], -1)
    text = torch.from_numpy(project(teacher, TEXT, texts))
    return TeacherRows(image, text, float(teacher.scale.detach()))
