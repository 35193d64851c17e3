"""Learning from a teacher's embeddings: their values, their affinities, and contrast against them.

Sources: Yang et al. 2024, "CLIP-KD" (feature distillation, eq. 8; interactive contrast, eq. 11);
Wu et al. 2023, "TinyCLIP" (affinity mimicking, section 3.1). See docs/compression.md.

Shape legend: B pairs (the other counts, C, G and H, must equal it), E features of the student's
space, T of the teacher's (which need not be E for affinities).
"""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from plait.core.errors import UserError
from plait.objectives.contrastive.contrastive import info_nce
from plait.objectives.contrastive.plain import Scalar


def feature_mse(student: Float[Tensor, "B E"], teacher: Float[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Squared distance of each row to the teacher's, summed over features, the mean over rows.

    Of unit rows this is ``2 - 2 cos``, so from 0 to 4 whatever the number of features.

    Raises:
        UserError: rows of different numbers or lengths.
    """
    if student.shape != teacher.shape:
        raise UserError(
            f"feature_mse compares rows of one space: the student's are {tuple(student.shape)}, the "
            f"teacher's {tuple(teacher.shape)}"
        )
    return (student - teacher.detach()).square().sum(dim=1).mean()


def affinity_mimicking(
    left: Float[Tensor, "B E"],
    right: Float[Tensor, "C E"],
    scale: Scalar,
    teacher_left: Float[Tensor, "G T"],
    teacher_right: Float[Tensor, "H T"],
    teacher_scale: Scalar,
) -> Float[Tensor, ""]:
    """How far the student's affinities between pairs of the batch are from the teacher's.

    With ``A = softmax(scale left right^T)`` over the columns, and over the rows, of either model,
    this is the mean over both of ``KL(A_teacher || A_student)``. TinyCLIP writes the cross-entropy,
    which differs by the teacher's entropy: the gradients are the same, and this one is zero where
    the student agrees. Memory is quadratic in the batch.

    Args:
        left: the student's unit rows.
        right: those of the other modality; row i pairs with row i of ``left``.
        scale: of the student's logits.
        teacher_left: the teacher's unit rows, which get no gradient.
        teacher_right: those of the other modality.
        teacher_scale: of its logits.

    Raises:
        UserError: numbers of rows that differ.
    """
    counts = {len(left), len(right), len(teacher_left), len(teacher_right)}
    if len(counts) != 1:
        raise UserError(f"affinities need pairs: numbers of rows are {sorted(counts)}")
    logits = scale * (left @ right.T)
    wanted = (teacher_scale * (teacher_left @ teacher_right.T)).detach()
    losses = []
    for own, theirs in ((logits, wanted), (logits.T, wanted.T)):
        target = theirs.log_softmax(1)
        losses.append((target.exp() * (target - own.log_softmax(1))).sum(1).mean())
    return (losses[0] + losses[1]) / 2


def interactive_contrast(
    left: Float[Tensor, "B E"],
    right: Float[Tensor, "C E"],
    scale: Scalar,
    teacher_left: Float[Tensor, "G T"],
    teacher_right: Float[Tensor, "H T"],
    ids: Int64[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """InfoNCE of each side of the student against the other side of the teacher.

    The student's pictures pick among the teacher's texts, and its texts among the teacher's
    pictures; the mean of both.

    Args:
        left: the student's unit rows.
        right: those of the other modality; row i pairs with row i of ``left``.
        scale: of the logits.
        teacher_left: the teacher's unit rows, in a space of the same length; no gradient.
        teacher_right: those of the other modality.
        ids: rows with equal ids are positives of one another.

    Raises:
        UserError: spaces of different lengths.
    """
    if left.shape != teacher_right.shape or right.shape != teacher_left.shape:
        raise UserError(
            f"interactive_contrast compares rows of one space: the student's are "
            f"{tuple(left.shape)}, the teacher's {tuple(teacher_right.shape)}"
        )
    first = info_nce(left, teacher_right.detach(), scale, ids, ids, direction="left")
    second = info_nce(right, teacher_left.detach(), scale, ids, ids, direction="left")
    return (first + second) / 2
