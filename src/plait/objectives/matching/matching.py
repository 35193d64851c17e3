"""Image-text matching: which rows to show together, and the loss of telling pairs that belong.

Shape legend: B samples of a batch, P pairs to show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from plait.core.errors import UserError
from plait.objectives.base.precision import wide


@dataclass(frozen=True)
class Pairing:
    """Which row of one modality is shown with which row of the other.

    Attributes:
        left: (P,) rows, for example of pictures.
        right: (P,) rows of the other modality.
        matched: (P,) True where the two belong together.
    """

    left: Int64[Tensor, " P"]
    right: Int64[Tensor, " P"]
    matched: Bool[Tensor, " P"]

    def __len__(self) -> int:
        return len(self.left)


def itm_loss(logits: Float[Tensor, "P 2"], matched: Bool[Tensor, " P"]) -> Float[Tensor, ""]:
    """Mean two-way cross-entropy; 0 with a graph when there is no pair.

    Args:
        logits: (P, 2) of not matched (0) and matched (1), as UNITER has them. VisualBERT and
            LXMERT checkpoints count the same way; ViLBERT's and BERT's next sentence head count
            the other way round.
        matched: (P,) True where the two belong together.
    """
    total = F.cross_entropy(wide(logits), matched.long(), reduction="sum")
    return total / max(1, len(matched))


def random_pairing(
    groups: Int64[Tensor, " B"], *, generator: torch.Generator, share: float = 0.5
) -> Pairing:
    """Every row once; with probability ``share`` beside a row of another group (UNITER).

    Args:
        groups: (B,) rows with equal numbers show the same thing and never count as unmatched.
        generator: the only source of chance; on the processor.
        share: of wrong pairs, from 0 to 1; a row without another group keeps its partner.

    Raises:
        UserError: the share is out of range.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share {share:g} is not in 0..1")
    rows = torch.arange(len(groups), device=groups.device)
    swap = torch.rand(len(groups), generator=generator, dtype=torch.float64) < share
    even = torch.zeros(len(groups), len(groups), device=groups.device)
    other, found = hard_negatives(even, groups, generator=generator)
    swap = swap.to(groups.device) & found
    return Pairing(rows, torch.where(swap, other, rows), ~swap)


def mined_pairing(
    groups: Int64[Tensor, " B"],
    score: Callable[[Tensor, Tensor], Tensor],
    *,
    generator: torch.Generator,
    share: float = 0.5,
    candidates: int = 4,
) -> Pairing:
    """`random_pairing` with the wrong right rows the hardest to tell of several that are drawn.

    The model itself says which, as where UNITER mines negatives for retrieval (Chen et al. 2020):
    a model of pairs has no similarity but what it says of a pair.

    Args:
        groups: (B,) rows with equal numbers show the same thing and never count as unmatched.
        score: left rows (P,) and right rows (P,) to (P,) scores, the higher the more a pair seems
            to belong together. Asked once, for ``candidates`` pairs of each row with a wrong
            partner; not at all when none has.
        generator: the only source of chance; on the processor.
        share: of wrong pairs, from 0 to 1; a row without another group keeps its partner.
        candidates: drawn for each wrong pair, evenly and with replacement, at least 1. Of equal
            scores the first drawn is taken.

    Raises:
        UserError: the share or the number of candidates is out of range.
    """
    if candidates < 1:
        raise UserError(f"candidates {candidates} is not at least 1")
    pairing = random_pairing(groups, generator=generator, share=share)
    wrong = (~pairing.matched).nonzero()[:, 0]
    if not len(wrong):
        return pairing
    even = torch.zeros(len(groups), len(groups), device=groups.device)
    more = [
        hard_negatives(even, groups, generator=generator)[0][wrong] for _ in range(candidates - 1)
    ]
    right = torch.stack([pairing.right[wrong], *more])  # (candidates, wrong pairs)
    left = wrong.expand_as(right)
    scores = score(left.flatten(), right.flatten()).detach().view_as(right)
    hardest = right.gather(0, scores.argmax(dim=0, keepdim=True))[0]
    return Pairing(pairing.left, pairing.right.index_copy(0, wrong, hardest), pairing.matched)


def hard_pairing(
    similarity: Float[Tensor, "B B"], groups: Int64[Tensor, " B"], *, generator: torch.Generator
) -> Pairing:
    """The B true pairs, then each left row with a hard right one, then the reverse (ALBEF, BLIP).

    Li et al. 2021, section 3.2. Rows of which all others are of the same group are left out of
    the second and third part, so P is 3 B at most: one positive to two negatives.

    Args:
        similarity: (B, B) scaled similarities (logits) of left rows to right rows.
        groups: (B,) rows with equal numbers show the same thing.
        generator: the only source of chance; on the processor.
    """
    rows = torch.arange(len(groups), device=groups.device)
    right, right_found = hard_negatives(similarity, groups, generator=generator)
    left, left_found = hard_negatives(similarity.T, groups, generator=generator)
    pairs = [(rows, rows), (rows[right_found], right[right_found])]
    pairs.append((left[left_found], rows[left_found]))
    matched = [torch.full_like(one, number == 0) for number, (one, _) in enumerate(pairs)]
    return Pairing(
        torch.cat([one for one, _ in pairs]),
        torch.cat([other for _, other in pairs]),
        torch.cat(matched).bool(),
    )


@torch.no_grad()
def hard_negatives(
    similarity: Float[Tensor, "B B"], groups: Int64[Tensor, " B"], *, generator: torch.Generator
) -> tuple[Int64[Tensor, " B"], Bool[Tensor, " B"]]:
    """For each row a row of another group, drawn in proportion to exp(similarity).

    Drawn as the largest of similarity plus Gumbel noise, which is the softmax's distribution
    (Gumbel 1954) without its underflow: a batch whose true pairs are far above the rest still
    has negatives.

    Args:
        similarity: (B, B) scaled similarities (logits); no gradient flows.
        groups: (B,) rows with equal numbers show the same thing.
        generator: the only source of chance; on the processor.

    Returns:
        (B,) columns, and (B,) False where all rows are of one group: there the column is the row
        itself.
    """
    noise = torch.rand(similarity.shape, generator=generator, dtype=torch.float64)
    noise = -(-noise.clamp(min=1e-300).log()).clamp(min=1e-300).log()
    allowed = groups[:, None] != groups[None, :]
    scores = similarity.detach().double() + noise.to(similarity.device)
    found = allowed.any(dim=1)
    rows = torch.arange(len(groups), device=groups.device)
    if not len(rows):
        return rows, found
    drawn = scores.masked_fill(~allowed, float("-inf")).argmax(dim=1)
    return torch.where(found, drawn, rows), found
