"""BLIP-2's losses, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.core.errors import UserError
from plait.objectives.matching.qformer import (
    query_contrast_loss,
    query_match_loss,
    query_similarity,
    writing_loss,
)


def numbers(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_nearest_query_counts() -> None:
    queries = numbers([[[1, 0], [0, 1]], [[0.6, 0.8], [-1, 0]]])
    texts = numbers([[1, 0], [0, 1], [-1, 0]])
    assert query_similarity(queries, texts).tolist() == [[1, 1, 0], [0.6, 0.8, 1]]


def test_only_the_nearest_query_gets_a_gradient() -> None:
    queries = numbers([[[1, 0], [0, 1]]]).requires_grad_()
    query_similarity(queries, numbers([[0.8, 0.6]])).sum().backward()
    assert queries.grad is not None and queries.grad.tolist() == [[[0.8, 0.6], [0, 0]]]


def test_contrast_of_two_pairs_by_hand() -> None:
    """Similarities 1 and 0 at temperature 1/2: log-sum-exp L = log(e^2 + 1) in all four sums.

    Smoothed target of the right one 0.9 + 0.05, of the wrong one 0.05: L - 0.95 * 2.
    """
    similarity = numbers([[1, 0], [0, 1]])
    loss = query_contrast_loss(similarity, 0.5)
    assert loss.item() == pytest.approx(math.log(math.exp(2) + 1) - 1.9, abs=1e-12)
    plain = query_contrast_loss(similarity, 0.5, smoothing=0.0)
    assert plain.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-12)


def test_both_directions_and_their_mean() -> None:
    similarity = numbers([[2, 1], [0, 0]])
    rows = [math.log(1 + math.exp(-1)), math.log(2)]
    columns = [math.log(1 + math.exp(-2)), math.log(math.exp(1) + 1)]
    expected = (sum(rows) + sum(columns)) / 4
    loss = query_contrast_loss(similarity, 1.0, smoothing=0.0)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_rows_of_a_group_are_positives_of_one_another() -> None:
    """Three rows, the first two alike: their target is 1/2 each."""
    similarity = numbers([[3, 1, 0], [1, 3, 0], [0, 0, 2]])
    groups = torch.tensor([4, 4, 1])
    first = math.log(math.exp(3) + math.exp(1) + 1) - 2
    last = math.log(math.exp(2) + 2) - 2
    loss = query_contrast_loss(similarity, 1.0, groups, smoothing=0.0)
    assert loss.item() == pytest.approx((2 * first + last) / 3, abs=1e-12)


def test_the_temperature_is_learned() -> None:
    """d/dt of log(1 + exp(-1/t)) at t = 1/2: 4 / (1 + e^2)."""
    temperature = numbers(0.5).requires_grad_()
    query_contrast_loss(numbers([[1, 0], [0, 1]]), temperature, smoothing=0.0).backward()
    assert temperature.grad is not None
    assert temperature.grad.item() == pytest.approx(4 / (1 + math.exp(2)), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_order_of_rows_does_not_matter(seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randn(rows, rows, generator=generator, dtype=torch.float64)
    groups = torch.randint(3, (rows,), generator=generator)
    order = torch.randperm(rows, generator=generator)
    loss = query_contrast_loss(similarity, 0.07, groups)
    shuffled = query_contrast_loss(similarity[order][:, order], 0.07, groups[order])
    torch.testing.assert_close(shuffled, loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(query_contrast_loss(similarity.T, 0.07, groups), loss)


def test_match_is_asked_of_the_mean_of_the_queries() -> None:
    """Means (0, 1) of a right pair and (2, 2) of a wrong one."""
    logits = numbers([[[0, 3], [0, -1]], [[1, 4], [3, 0]]]).requires_grad_()
    loss = query_match_loss(logits, torch.tensor([True, False]))
    expected = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[1].flatten().tolist() == pytest.approx([-0.125, 0.125, -0.125, 0.125])
    alone = query_match_loss(logits[1:], torch.tensor([False]))
    assert alone.item() == pytest.approx(math.log(2), abs=1e-12)
    assert query_match_loss(logits[:0], torch.zeros(0) > 0).item() == 0


def test_writing_by_hand() -> None:
    """Two words are asked for: 2 after the first place of text 0, 1 after that of text 1.

    Vocabulary of 4, smoothing 0.1: the target is 0.925 at the word and 0.025 elsewhere.
    """
    ids = torch.tensor([[3, 2, 0], [3, 1, 0]])
    mask = ids != 0
    logits = numbers([[[0, 0, 1, 0]] * 3, [[0, 2, 0, 0]] * 3]).requires_grad_()
    first = math.log(3 + math.e) - 0.925 * 1
    second = math.log(3 + math.exp(2)) - 0.925 * 2
    loss = writing_loss(logits, ids, mask)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-12)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, 0].any() and not logits.grad[:, 1:].any()
    plain = writing_loss(logits, ids, mask, smoothing=0.0)
    assert plain.item() == pytest.approx((first + second - 0.075 * 3) / 2, abs=1e-12)


def test_nothing_to_write_is_zero_with_a_graph() -> None:
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = writing_loss(logits, torch.zeros(1, 3).long(), torch.tensor([[True, False, False]]))
    assert loss.item() == 0 and loss.requires_grad


def test_messages() -> None:
    with pytest.raises(UserError, match=r"label smoothing 1.5 is not in 0\.\.1"):
        query_contrast_loss(torch.zeros(1, 1), 1.0, smoothing=1.5)
    with pytest.raises(UserError, match=r"label smoothing -0.1"):
        writing_loss(
            torch.zeros(1, 1, 2), torch.zeros(1, 1).long(), torch.ones(1, 1) > 0, smoothing=-0.1
        )
