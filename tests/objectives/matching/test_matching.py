from __future__ import annotations

import math

import pytest
import torch

from plait.core.errors import UserError
from plait.objectives import hard_negatives, hard_pairing, itm_loss, mined_pairing, random_pairing


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_two_way_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    loss = itm_loss(logits, torch.tensor([True, False]))
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(2)) / 2, abs=1e-12)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[1].tolist() == pytest.approx([-0.25, 0.25])
    nothing = itm_loss(logits[:0], torch.zeros(0, dtype=torch.bool))
    assert nothing.item() == 0
    assert nothing.requires_grad


def test_drawn_in_proportion_to_the_softmax() -> None:
    """Row 0 of group 0 may take columns 2 and 3; 4000 draws, three standard deviations wide."""
    similarity = torch.tensor([[9.0, 8.0, 1.0, 1.0 + math.log(3)]] * 4)
    groups = torch.tensor([0, 0, 1, 2])
    source = generator()
    drawn = torch.stack(
        [hard_negatives(similarity, groups, generator=source)[0] for _ in range(4000)]
    )
    assert set(drawn[:, 0].tolist()) == {2, 3}
    assert (drawn[:, 0] == 3).double().mean().item() == pytest.approx(0.75, abs=0.021)
    assert set(drawn[:, 2].tolist()) <= {0, 1, 3}


def test_far_below_the_true_pair_there_is_still_a_choice() -> None:
    """exp(-2000) is 0 in every format, so a softmax with the diagonal would leave nothing."""
    similarity = 2000 * torch.eye(3)
    drawn, found = hard_negatives(similarity, torch.arange(3), generator=generator())
    assert found.all()
    assert (drawn != torch.arange(3)).all()


def test_one_group_has_no_negatives() -> None:
    groups = torch.tensor([5, 5, 5])
    drawn, found = hard_negatives(torch.zeros(3, 3), groups, generator=generator())
    assert not found.any()
    assert drawn.tolist() == [0, 1, 2]
    assert random_pairing(groups, generator=generator(), share=1.0).matched.all()
    assert len(hard_pairing(torch.zeros(3, 3), groups, generator=generator())) == 3
    empty = random_pairing(groups[:0], generator=generator())
    assert len(empty) == 0


def test_random_pairs() -> None:
    groups = torch.arange(2000) // 2
    plan = random_pairing(groups, generator=generator())
    assert torch.equal(plan.left, torch.arange(2000))
    assert torch.equal(plan.matched, plan.right == plan.left)
    assert (groups[plan.right] != groups[plan.left])[~plan.matched].all()
    assert plan.matched.double().mean().item() == pytest.approx(0.5, abs=0.034)
    again = random_pairing(groups, generator=generator())
    assert torch.equal(plan.right, again.right)
    assert not torch.equal(plan.right, random_pairing(groups, generator=generator(1)).right)


def test_hard_pairs_are_one_right_to_two_wrong() -> None:
    groups = torch.tensor([0, 0, 1, 2])
    # right row 2 is all but certain for left rows 0 and 1, left row 3 for right row 2
    similarity = torch.zeros(4, 4)
    similarity[0, 2] = similarity[1, 2] = 50.0
    similarity[3, 2] = 100.0
    plan = hard_pairing(similarity, groups, generator=generator())
    assert len(plan) == 12
    assert plan.matched.tolist() == [True] * 4 + [False] * 8
    assert plan.left[:8].tolist() == [0, 1, 2, 3] * 2
    assert plan.right[4:6].tolist() == [2, 2]
    assert plan.right[8:].tolist() == [0, 1, 2, 3]
    assert plan.left[10].item() == 3
    assert (groups[plan.left] != groups[plan.right])[~plan.matched].all()


def test_share_out_of_range() -> None:
    with pytest.raises(UserError, match=r"share 2 is not in 0\.\.1"):
        random_pairing(torch.arange(3), generator=generator(), share=2.0)


def test_mined_pairs_are_the_candidates_that_score_best() -> None:
    """Text 2 seems to fit everything, then text 1: of 64 draws from 4 texts none is left out."""
    groups = torch.tensor([0, 1, 2, 3, 3])
    asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def score(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        asked.append((left, right))
        return torch.tensor([0.0, 5.0, 9.0, 1.0, 1.0])[right]

    plan = mined_pairing(groups, score, generator=generator(), share=1.0, candidates=64)
    assert plan.left.tolist() == [0, 1, 2, 3, 4]
    assert plan.right.tolist() == [2, 2, 1, 2, 2]
    assert not plan.matched.any()
    ((left, right),) = asked
    assert len(left) == 5 * 64
    assert (groups[left] != groups[right]).all()


def test_mined_pairs_start_from_the_random_ones() -> None:
    """One candidate, or scores that are all alike: what `random_pairing` draws."""
    groups = torch.arange(40) // 2
    plain = random_pairing(groups, generator=generator())
    for candidates in (1, 4):
        plan = mined_pairing(
            groups,
            lambda left, right: torch.zeros(len(left)),
            generator=generator(),
            candidates=candidates,
        )
        assert torch.equal(plan.right, plain.right)
        assert torch.equal(plan.matched, plain.matched)
    assert 0 < plain.matched.sum() < 40


def test_without_wrong_pairs_nothing_is_asked() -> None:
    def never(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        raise AssertionError("there is nothing to choose")

    alike = torch.tensor([5, 5, 5])
    assert mined_pairing(alike, never, generator=generator(), share=1.0).matched.all()
    with pytest.raises(UserError, match="candidates 0 is not at least 1"):
        mined_pairing(alike, never, generator=generator(), candidates=0)
