"""Which words and regions a model has to restore: random, repeatable from a generator.

Shape legend: B samples, N words, M regions.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from plait.core.errors import UserError

IGNORED = -100
"""Label of a position that no loss looks at (`torch.nn.functional.cross_entropy`)."""
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen words; the rest stays as it is


def mask_tokens(
    ids: Int64[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    special: Collection[int],
    vocabulary: int,
    mask_id: int,
    generator: torch.Generator,
    share: float = 0.15,
) -> tuple[Int64[Tensor, "B N"], Int64[Tensor, "B N"]]:
    """Words hidden as in BERT (Devlin et al. 2019, section 3.1).

    Each word is chosen with probability ``share``; a chosen one becomes ``mask_id`` in 80% of
    cases, any other word of the vocabulary that is not special in 10%, and stays as it is in 10%.
    A row with words of which none was chosen gets one, drawn evenly, so that no row is wasted;
    in short rows the share is thus a little higher.

    Args:
        ids: (B, N) token ids.
        mask: (B, N) True for real positions.
        special: ids that are neither chosen nor put in place of a word, such as ``[CLS]``.
        vocabulary: how many ids there are.
        mask_id: the id of ``[MASK]``.
        generator: the only source of chance; on the processor.
        share: of the words, above 0 and at most 1.

    Returns:
        (B, N) what the model reads, and (B, N) the true ids where a word was chosen, -100 elsewhere.

    Raises:
        UserError: a share or an id out of range, or a vocabulary of special ids alone.
    """
    _check_share(share)
    if not 0 <= mask_id < vocabulary:
        raise UserError(f"mask_id {mask_id} is not in a vocabulary of {vocabulary}")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        raise UserError(
            f"ids reach from {int(ids.min())} to {int(ids.max())}, but the vocabulary has "
            f"{vocabulary}"
        )
    fixed = torch.tensor(sorted({*special, mask_id}), device=ids.device)
    ordinary = torch.ones(vocabulary, dtype=torch.bool, device=ids.device)
    ordinary[fixed[(fixed >= 0) & (fixed < vocabulary)]] = False
    words = ordinary.nonzero()[:, 0]
    if not len(words):
        raise UserError(f"all {vocabulary} ids of the vocabulary are special: no word is left")
    chosen = _choose(mask & ordinary[ids], generator, share)
    kind = _uniform(ids.shape, generator, ids.device)
    drawn = torch.randint(len(words), ids.shape, generator=generator).to(ids.device)
    hidden = ids.masked_fill(chosen & (kind < MASK_SHARE), mask_id)
    swapped = chosen & (kind >= MASK_SHARE) & (kind < MASK_SHARE + RANDOM_SHARE)
    hidden = torch.where(swapped, words[drawn], hidden)
    return hidden, ids.masked_fill(~chosen, IGNORED)


def mask_regions(
    mask: Bool[Tensor, "B M"], *, generator: torch.Generator, share: float = 0.15
) -> Bool[Tensor, "B M"]:
    """Regions to hide: each with probability ``share``, at least one where a row has any.

    A region that must stay (ViLBERT's region 0, the whole picture) is False in the ``mask`` given
    here. What hiding means is the model's: UNITER zeroes the features and adds a learned vector.

    Args:
        mask: (B, M) True for regions that may be hidden.
        generator: the only source of chance; on the processor.
        share: of the regions, above 0 and at most 1.

    Returns:
        (B, M) True where a region is hidden.

    Raises:
        UserError: the share is out of range.
    """
    _check_share(share)
    return _choose(mask, generator, share)


def _choose(
    allowed: Bool[Tensor, "B N"], generator: torch.Generator, share: float
) -> Bool[Tensor, "B N"]:
    draw = _uniform(allowed.shape, generator, allowed.device).masked_fill(~allowed, 2.0)
    chosen = draw < share
    if not allowed.shape[1]:
        return chosen
    smallest = torch.zeros_like(chosen).scatter(1, draw.argmin(dim=1, keepdim=True), True)
    return chosen | (smallest & allowed & ~chosen.any(dim=1, keepdim=True))


def _uniform(
    shape: torch.Size, generator: torch.Generator, device: torch.device
) -> Float[Tensor, "B N"]:
    """Drawn on the processor: the same numbers on every device."""
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(device)


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise UserError(f"share {share:g} is not above 0 and at most 1")
