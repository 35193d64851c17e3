from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plait.core.errors import UserError
from plait.objectives import mask_regions, mask_tokens

CLS, SEP, PAD, MASK = 2, 3, 0, 4
VOCABULARY = 60


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sentences(rows: int, words: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of [CLS] words [SEP] and padding, of different lengths."""
    drawn = torch.randint(5, VOCABULARY, (rows, words + 2), generator=generator(seed))
    lengths = torch.randint(1, words + 1, (rows, 1), generator=generator(seed + 1)) + 2
    place = torch.arange(words + 2)[None, :]
    ids = drawn.where(place < lengths - 1, torch.tensor(SEP)).where(place < lengths, PAD)
    ids[:, 0] = CLS
    return ids, place < lengths


def hide(ids: Tensor, mask: Tensor, seed: int = 0, **options) -> tuple[Tensor, Tensor]:
    return mask_tokens(
        ids,
        mask,
        special=(CLS, SEP, PAD),
        vocabulary=VOCABULARY,
        mask_id=MASK,
        generator=generator(seed),
        **options,
    )


def test_only_real_words_and_at_least_one_a_row() -> None:
    ids, mask = sentences(200, 6)
    hidden, labels = hide(ids, mask, share=0.05)
    chosen = labels != -100
    allowed = mask & (ids != CLS) & (ids != SEP)
    assert not (chosen & ~allowed).any()
    assert chosen.any(dim=1).all()
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert not torch.isin(hidden[chosen], torch.tensor([CLS, SEP, PAD])).any()


def test_shares_of_the_three_fates() -> None:
    """20,000 words, three standard deviations of a binomial wide."""
    ids = torch.randint(5, VOCABULARY, (200, 100), generator=generator(3))
    hidden, labels = hide(ids, torch.ones_like(ids, dtype=torch.bool))
    chosen = labels != -100
    assert chosen.double().mean().item() == pytest.approx(0.15, abs=0.008)
    there, were = hidden[chosen], ids[chosen]
    assert (there == MASK).double().mean().item() == pytest.approx(0.8, abs=0.022)
    # a random word is the old one in 1 of 55 cases
    kept = (there == were).double().mean().item()
    assert kept == pytest.approx(0.1 + 0.1 / 55, abs=0.017)
    swapped = there[(there != MASK) & (there != were)]
    assert len(swapped.unique()) > 50  # of 55 words: all of the vocabulary serves


def test_the_ends_of_the_vocabulary() -> None:
    """Ids 0 and 3 are special, 1 and 2 words: only these are chosen and put in place of others."""
    ids = torch.tensor([[0, 1, 2, 3]] * 500)
    hidden, labels = mask_tokens(
        ids,
        torch.ones_like(ids, dtype=torch.bool),
        special=(0, 3, -1, 99),  # not every list of special ids fits its vocabulary
        vocabulary=5,
        mask_id=4,
        generator=generator(),
        share=1.0,
    )
    assert labels.tolist() == [[-100, 1, 2, -100]] * 500
    assert hidden[:, 1:3].unique().tolist() == [1, 2, MASK]
    alone, _ = mask_tokens(  # [MASK] itself is no word, wherever it is
        ids[:, :3],
        ids[:, :3] > 0,
        special=(),
        vocabulary=3,
        mask_id=0,
        generator=generator(),
        share=1.0,
    )
    assert alone[:, 1:].unique().tolist() == [0, 1, 2] and alone[:, 0].eq(0).all()


def test_a_row_without_words_stays() -> None:
    ids = torch.tensor([[CLS, SEP, PAD], [CLS, 9, SEP]])
    hidden, labels = hide(ids, ids != PAD, share=1.0)
    assert labels.tolist() == [[-100] * 3, [-100, 9, -100]]
    assert hidden[0].tolist() == [CLS, SEP, PAD]


def test_the_forced_word_is_drawn_evenly() -> None:
    ids = torch.full((3000, 3), 9)
    _, labels = hide(ids, torch.ones_like(ids, dtype=torch.bool), share=1e-9)
    assert (labels != -100).sum(dim=1).eq(1).all()
    assert (labels != -100).sum(dim=0).tolist() == pytest.approx([1000] * 3, abs=80)


def test_a_generator_decides_all() -> None:
    ids, mask = sentences(8, 6)
    before = torch.get_rng_state()
    first, second, other = hide(ids, mask), hide(ids, mask), hide(ids, mask, seed=1)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_no_words_at_all() -> None:
    ids = torch.zeros(2, 0, dtype=torch.long)
    hidden, labels = hide(ids, ids.bool())
    assert hidden.shape == labels.shape == (2, 0)


def test_regions() -> None:
    mask = torch.ones(400, 20, dtype=torch.bool)
    mask[:, 0] = False  # the whole picture stays
    mask[0] = False
    chosen = mask_regions(mask, generator=generator())
    assert not (chosen & ~mask).any()
    assert chosen[1:].any(dim=1).all()
    # at least one of 19: 0.15 + (1 - 0.15)^19 / 19
    assert chosen[1:, 1:].double().mean().item() == pytest.approx(0.1524, abs=0.013)
    assert torch.equal(chosen, mask_regions(mask, generator=generator()))


def test_refusals() -> None:
    ids = torch.tensor([[7, 8]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with pytest.raises(UserError, match="share 0 is not above 0"):
        hide(ids, mask, share=0.0)
    with pytest.raises(UserError, match=r"share 1\.5 is not above 0 and at most 1"):
        mask_regions(mask, generator=generator(), share=1.5)
    with pytest.raises(UserError, match="ids reach from 7 to 60, but the vocabulary has 60"):
        hide(torch.tensor([[7, 60]]), mask)
    with pytest.raises(UserError, match="mask_id 9 is not in a vocabulary of 9"):
        mask_tokens(ids, mask, special=(), vocabulary=9, mask_id=9, generator=generator())
    with pytest.raises(UserError, match="mask_id -1 is not in a vocabulary of 9"):
        mask_tokens(ids, mask, special=(), vocabulary=9, mask_id=-1, generator=generator())
    with pytest.raises(UserError, match="ids reach from -1 to 8"):
        hide(ids.masked_fill(ids == 7, -1), mask)
    with pytest.raises(UserError, match=r"share -0\.5 is not above 0"):
        hide(ids, mask, share=-0.5)
    with pytest.raises(UserError, match="all 3 ids of the vocabulary are special"):
        mask_tokens(ids * 0, mask, special=(0, 1), vocabulary=3, mask_id=2, generator=generator())
