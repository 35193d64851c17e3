from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from plait.core.errors import UserError
from plait.objectives import hardest, ranking_loss, soft_targets, vqa_bce, vqa_ce, vqa_kl


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


TARGETS = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


def bce(x: Tensor) -> Tensor:
    """-t ln p - (1 - t) ln(1 - p), summed over answers, mean over questions."""
    p = 1 / (1 + (-x).exp())
    return -(TARGETS * p.log() + (1 - TARGETS) * (1 - p).log()).sum() / 2


def kl(x: Tensor) -> Tensor:
    """Only 1 and 0.3 of the first question carry mass."""
    share = (x.exp() / x.exp().sum(1, keepdim=True)).log()
    return (1 * (0 - share[0, 0]) + 0.3 * (math.log(0.3) - share[0, 1])) / 2


def kl_normalised(x: Tensor) -> Tensor:
    share = (x.exp() / x.exp().sum(1, keepdim=True)).log()
    p, q = 1 / 1.3, 0.3 / 1.3
    return (p * (math.log(p) - share[0, 0]) + q * (math.log(q) - share[0, 1])) / 2


def ce(x: Tensor) -> Tensor:
    return x[1].exp().sum().log() - x[1, 2]


@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        (lambda x: vqa_bce(x, TARGETS), bce),
        (lambda x: vqa_kl(x, TARGETS), kl),
        (lambda x: vqa_kl(x, TARGETS, normalise=True), kl_normalised),
        (lambda x: vqa_ce(x, torch.tensor([-100, 2])), ce),
    ],
    ids=["bce", "kl", "kl of distributions", "ce"],
)
def test_by_its_formula(fast, slow) -> None:
    x = drawn(2, 3).requires_grad_()
    losses = fast(x), slow(x)
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-12)
    gradients = [torch.autograd.grad(loss, x)[0] for loss in losses]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_no_question_with_an_answer() -> None:
    x = drawn(2, 3).requires_grad_()
    for loss in (vqa_ce(x, torch.tensor([-100, -100])), vqa_bce(x[:0], TARGETS[:0])):
        assert loss.item() == 0
        assert torch.autograd.grad(loss, x)[0].eq(0).all()


def leave_one_out(answers: list[int], candidate: int) -> float:
    """The accuracy of a candidate, from every choice of the others."""
    groups = list(itertools.combinations(range(len(answers)), len(answers) - 1))
    return sum(min(1, sum(answers[i] == candidate for i in one) / 3) for one in groups) / len(
        groups
    )


def test_ten_people() -> None:
    answers = [0] * 4 + [1] * 3 + [2] * 2 + [3]
    tensor = torch.tensor([answers])
    assert soft_targets(tensor, 5)[0].tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3, 0])
    exact = soft_targets(tensor, 5, exact=True)[0].tolist()
    assert exact == pytest.approx([1.0, 0.9, 0.6, 0.3, 0.0])
    assert exact == pytest.approx([leave_one_out(answers, one) for one in range(5)])


def test_fewer_people_and_unknown_answers() -> None:
    answers = torch.tensor([[0, -1, -1, -1], [1, -100, -100, -100], [-100, -100, -100, -100]])
    assert soft_targets(answers, 2).tolist() == [[pytest.approx(1 / 3), 0], [0, 1], [0, 0]]
    exact = soft_targets(answers, 2, exact=True)
    assert exact[0].tolist() == pytest.approx([leave_one_out([0, 9, 9, 9], 0), 0])
    assert exact[1:].tolist() == [[0, 1], [0, 0]]


def test_ranking_by_hand() -> None:
    """sigmoid 0 is 1/2, sigmoid ln 3 is 3/4."""
    right = torch.tensor([0.0, math.log(3)], dtype=torch.float64, requires_grad=True)
    wrong = torch.tensor([[0.0, math.log(3)], [0.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    loss = ranking_loss(right, wrong, mask)
    assert loss.item() == pytest.approx((0.2 + 0.45 + 0) / 3, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, right)
    assert gradient.tolist() == pytest.approx([-2 / 3 * 0.25, 0])
    nothing = ranking_loss(right, wrong, mask & False)
    assert nothing.item() == 0
    assert nothing.requires_grad


def test_hardest() -> None:
    scores = torch.tensor([[3.0, 9.0, 5.0, 1.0], [3.0, 9.0, 5.0, 1.0]])
    columns, real = hardest(scores, 2)
    assert columns.tolist() == [[1, 2]] * 2
    assert real.all()
    allowed = torch.tensor([[True, False, True, True], [False, False, True, False]])
    columns, real = hardest(scores, 2, allowed)
    assert columns[0].tolist() == [2, 0]
    assert columns[1, 0].item() == 2
    assert real.tolist() == [[True, True], [True, False]]
    with pytest.raises(UserError, match="5 hard negatives of 4 candidates"):
        hardest(scores, 5)
