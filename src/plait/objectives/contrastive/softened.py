"""InfoNCE with softened targets: near misses, as a teacher sees them, count as partly right.

Shape legend: B pairs (the other counts, C and E, must equal it), D features of the space, T features
of the teacher.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from plait.core.errors import UserError
from plait.objectives.contrastive.plain import Scalar


def softened_info_nce(
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "C D"],
    scale: Scalar,
    teacher: Float[Tensor, "E T"],
    ids: Int64[Tensor, " B"] | None = None,
    *,
    share: float = 0.3,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE whose targets are mixed with a teacher's similarities within the batch.

    The target of row i is ``(1 - share)`` on its positives, evenly, and ``share`` on
    ``softmax(cos(teacher_i, teacher_j) / temperature)`` over j: where captions mean nearly the
    same, a picture may be near both. After SoftCLIP (Gao et al. 2023, section 3.2, with one
    teacher for both sides). Small data sets gain most. Memory is quadratic in the batch.

    Args:
        left: (B, D) unit rows.
        right: (B, D) unit rows; row i pairs with row i of ``left``.
        scale: multiplies the cosines.
        teacher: (B, T) features of any length, such as those of a frozen text encoder; they get
            no gradient.
        ids: (B,) rows with equal ids are positives of one another.
        share: of the softened part, from 0 (plain InfoNCE) to 1.
        temperature: of the teacher's similarities.

    Raises:
        UserError: rows that do not pair up, or a share or temperature out of range.
    """
    if not len(left) == len(right) == len(teacher):
        raise UserError(
            f"softened targets need pairs: {len(left)} left rows, {len(right)} right rows, "
            f"{len(teacher)} rows of the teacher"
        )
    if not 0 <= share <= 1 or temperature <= 0:
        raise UserError(
            f"share {share:g} is not in 0..1, or temperature {temperature:g} not above 0"
        )
    targets = _targets(teacher.detach().to(left.dtype), ids, share, temperature)
    logits = scale * (left @ right.T)
    rows = -(targets * logits.log_softmax(1)).sum(1).mean()
    columns = -(targets * logits.T.log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def _targets(teacher: Tensor, ids: Tensor | None, share: float, temperature: float) -> Tensor:
    """(B, B) rows that sum to 1; symmetric positives, so they serve both directions."""
    if ids is None:
        same = torch.eye(len(teacher), dtype=teacher.dtype, device=teacher.device)
    else:
        same = (ids[:, None] == ids[None, :]).to(teacher.dtype)
    unit = nn.functional.normalize(teacher, dim=1)
    near = (unit @ unit.T / temperature).softmax(1)
    return (1 - share) * same / same.sum(1, keepdim=True) + share * near
