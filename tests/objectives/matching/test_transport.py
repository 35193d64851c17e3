"""IPOT against the exact plan, a slow twin by the paper, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from plait.core.errors import UserError
from plait.objectives import cosine_cost, ipot, transport_cost, word_region_alignment

ot = pytest.importorskip("ot")


def problem(seed: int, batch: int = 8, most: int = 14) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (B, most, 4) of both sides and masks of 2 to ``most`` real ones."""
    generator = torch.Generator().manual_seed(seed)
    words, regions = (
        torch.randn(batch, most, 4, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    masks = [
        torch.arange(most)[None, :] < torch.randint(2, most + 1, (batch, 1), generator=generator)
        for _ in range(2)
    ]
    return words, regions, masks[0], masks[1]


def by_the_paper(cost: np.ndarray, beta: float, iterations: int) -> np.ndarray:
    """Algorithm 1 of Xie et al. 2018 for one problem without padding, with one inner step."""
    n, m = cost.shape
    right, plan = np.full(m, 1 / m), np.ones((n, m))
    kernel = np.exp(-cost / beta)
    for _ in range(iterations):
        step = kernel * plan
        left = (1 / n) / (step @ right)
        right = (1 / m) / (step.T @ left)
        plan = np.diag(left) @ step @ np.diag(right)
    return plan


@pytest.mark.parametrize(("beta", "iterations"), [(0.5, 50), (0.1, 7), (3.0, 1)])
def test_by_the_paper(beta: float, iterations: int) -> None:
    words, regions, rows, columns = problem(0)
    cost = cosine_cost(words, regions)
    plan = ipot(cost, rows, columns, beta=beta, iterations=iterations)
    for b in range(len(cost)):
        n, m = int(rows[b].sum()), int(columns[b].sum())
        expected = by_the_paper(cost[b, :n, :m].numpy(), beta, iterations)
        np.testing.assert_allclose(plan[b, :n, :m].numpy(), expected, rtol=1e-10, atol=1e-14)
        assert plan[b].sum().item() == pytest.approx(
            expected.sum(), abs=1e-12
        )  # nothing on padding


def test_near_the_exact_cost() -> None:
    """Twelve problems here, fifty in benchmarks/transport.py."""
    words, regions, rows, columns = (
        one.float() if i < 2 else one for i, one in enumerate(problem(1, 12))
    )
    cost = cosine_cost(words, regions)
    exact = []
    for b in range(len(cost)):
        part = cost[b][rows[b]][:, columns[b]].double().numpy()
        exact.append(ot.emd2(*(np.full(size, 1 / size) for size in part.shape), part))
    for iterations, mean in ((50, 3e-3), (2000, 1e-4)):
        plan = ipot(cost, rows, columns, iterations=iterations)
        assert plan.dtype == torch.float32
        spent = (cost * plan).sum(dim=(1, 2)).double().numpy()
        assert np.abs(spent - exact).mean() < mean


def test_defaults_are_near_the_exact_cost() -> None:
    """What the objectives use: fifty iterations come near, ten would not."""
    words, regions, rows, columns = problem(1, 12)
    cost = cosine_cost(words, regions)
    every = zip(cost, rows, columns, strict=True)
    exact = [ot.emd2([], [], one[n][:, m].contiguous().numpy()) for one, n, m in every]
    few = (cost * ipot(cost, rows, columns, iterations=10)).sum(dim=(1, 2)).numpy()
    assert np.abs(few - exact).mean() > 6e-3
    for spent in (
        (cost * ipot(cost, rows, columns)).sum(dim=(1, 2)),
        transport_cost(words, regions, rows, columns),
    ):
        assert np.abs(spent.numpy() - exact).mean() < 3e-3
    matched = torch.ones(len(cost), dtype=torch.bool)
    loss = word_region_alignment(words, regions, rows, columns, matched)
    assert abs(loss.item() - np.mean(exact)) < 3e-3


def test_square_problems_are_assignments() -> None:
    cost = cosine_cost(*(one[:, :9] for one in problem(2)[:2]))
    every = torch.ones(len(cost), 9, dtype=torch.bool)
    plan = ipot(cost, every, every, iterations=2000)
    for one, moved in zip(cost.numpy(), plan.numpy(), strict=True):
        pairs = scipy.optimize.linear_sum_assignment(one)
        assert (one * moved).sum() == pytest.approx(one[pairs].mean(), abs=1e-4)


def test_two_by_two_by_hand() -> None:
    """Costs 0 on the diagonal: nothing moves across it."""
    cost = 1 - torch.eye(2)[None]
    every = torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(ipot(cost, every, every), torch.eye(2)[None] / 2)


def test_an_empty_side_moves_nothing() -> None:
    words, regions, rows, columns = problem(3, batch=3)
    rows[0], columns[1] = False, False
    plan = ipot(cosine_cost(words, regions), rows, columns)
    assert plan[:2].eq(0).all()
    assert plan[2].sum().item() == pytest.approx(1)
    none = ipot(torch.zeros(2, 0, 3), torch.zeros(2, 0).bool(), torch.ones(2, 3).bool())
    assert none.shape == (2, 0, 3)


def test_the_gradient_is_the_plan() -> None:
    words, regions, rows, columns = problem(4)
    words.requires_grad_()
    fast = transport_cost(words, regions, rows, columns)
    cost = cosine_cost(words, regions)
    plan = ipot(cost.detach(), rows, columns)
    slow = torch.stack([(cost[b] * plan[b]).sum() for b in range(len(cost))])
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=0)
    weights = torch.randn(len(cost), dtype=torch.float64)
    gradients = [torch.autograd.grad(weights @ one, words)[0] for one in (fast, slow)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_alignment_pulls_matched_and_pushes_unmatched() -> None:
    words, regions, rows, columns = problem(5)
    matched = torch.tensor([True, False] * 4)
    costs = transport_cost(words, regions, rows, columns)
    expected = (costs[matched].sum() - costs[~matched].sum()) / 8
    found = word_region_alignment(words, regions, rows, columns, matched)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    rows[7] = False  # an absent modality: not counted
    expected = (costs[matched].sum() - costs[~matched][:3].sum()) / 7
    found = word_region_alignment(words, regions, rows, columns, matched)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    every = word_region_alignment(words, regions, rows, columns, matched | True)
    assert every.isfinite()


def test_padding_of_any_content_is_ignored() -> None:
    words, regions, rows, columns = problem(6)
    matched = torch.ones(8, dtype=torch.bool)
    expected = word_region_alignment(words, regions, rows, columns, matched)
    spoilt = words.masked_fill(~rows[:, :, None], float("nan")).requires_grad_()
    found = word_region_alignment(
        spoilt, regions.masked_fill(~columns[:, :, None], float("inf")), rows, columns, matched
    )
    assert found.item() == expected.item()
    found.backward()
    assert spoilt.grad is not None
    assert spoilt.grad.isfinite().all()


def test_autocast_and_half_precision_change_nothing() -> None:
    words, regions, rows, columns = problem(7)
    half = words.bfloat16(), regions.bfloat16()
    expected = transport_cost(*(one.float() for one in half), rows, columns)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = transport_cost(*half, rows, columns)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_refusals() -> None:
    cost, mask = torch.tensor([[[0.0, 100.0]]]), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(UserError, match=r"lie 100 apart, more than 80 times beta 0\.5"):
        ipot(cost, mask[:, :1], mask)
    with pytest.raises(UserError, match="lie nan apart"):
        ipot(cost * float("nan"), mask[:, :1], mask)
    with pytest.raises(UserError, match="beta 0 is not above 0"):
        ipot(cost, mask[:, :1], mask, beta=0.0)
    with pytest.raises(UserError, match="iterations 0 not at least 1"):
        ipot(cost, mask[:, :1], mask, iterations=0)
