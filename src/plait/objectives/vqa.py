"""Losses of answering by choosing among known answers.

Shape legend: B questions, A answers to choose from, K people who answered a question.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from plait.data.vqa.answers import score
from plait.objectives.base.precision import wide
from plait.objectives.masked.masking import IGNORED

UNKNOWN = -1
"""In `soft_targets`: a person's answer that is not among the known ones."""


def vqa_bce(logits: Float[Tensor, "B A"], targets: Float[Tensor, "B A"]) -> Float[Tensor, ""]:
    """Binary cross-entropy with soft scores: summed over answers, mean over questions.

    Teney et al. 2018, section 3.6; UNITER and LXMERT. The sum matters: a mean over 3,129 answers
    too would shrink the gradients by as much.

    Args:
        logits: (B, A).
        targets: (B, A) scores from 0 to 1 that need not sum to 1 (`soft_targets`).
    """
    total = F.binary_cross_entropy_with_logits(wide(logits), wide(targets), reduction="sum")
    return total / max(1, len(logits))


def vqa_kl(
    logits: Float[Tensor, "B A"], targets: Float[Tensor, "B A"], *, normalise: bool = False
) -> Float[Tensor, ""]:
    """KL(targets || softmax of logits), summed over answers, mean over questions (VisualBERT).

    Args:
        logits: (B, A).
        targets: (B, A) scores. A row of zeros has loss 0.
        normalise: make each row of targets sum to 1 first, so that the loss is a divergence and
            cannot be negative. The default is VisualBERT's: scores as they are.
    """
    targets = wide(targets)
    if normalise:
        total = targets.sum(dim=1, keepdim=True)
        targets = targets / torch.where(total > 0, total, torch.ones_like(total))
    divergence = F.kl_div(wide(logits).log_softmax(dim=1), targets, reduction="sum")
    return divergence / max(1, len(logits))


def vqa_ce(logits: Float[Tensor, "B A"], answers: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
    """Cross-entropy with one answer a question, mean over the questions that have one.

    Args:
        logits: (B, A).
        answers: (B,) the row of the answer; -100 where it is not among the known ones. 0 with a
            graph when no question has one.
    """
    known = answers != IGNORED
    total = F.cross_entropy(wide(logits[known]), answers[known], reduction="sum")
    return total / known.sum().clamp(min=1)


def soft_targets(
    answers: Int64[Tensor, "B K"], size: int, *, exact: bool = False
) -> Float[Tensor, "B A"]:
    """Scores of the known answers from what K people said (ten in VQA v2).

    Args:
        answers: (B, K) rows of answers; -1 for one that is not known, -100 where fewer than K
            people answered.
        size: A, how many answers are known.
        exact: the accuracy that the answer would get, averaged over which person is left out:
            0.3, 0.6, 0.9, 1 of ten; else min(1, count / 3), as UNITER and LXMERT train with.
            See `plait.data.vqa.answers.score`.
    """
    rows, people = answers.shape
    counts = torch.zeros(rows, size + 1, dtype=torch.long, device=answers.device)
    column = torch.where(answers < 0, size, answers)
    counts.scatter_add_(1, column, torch.ones_like(column))
    asked = (answers != IGNORED).sum(dim=1, keepdim=True)
    table = torch.tensor(
        [[score(min(c, n), n, exact=exact) for c in range(people + 1)] for n in range(people + 1)],
        device=answers.device,
    )
    return table[asked, counts[:, :size]]
