from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from plait.core.errors import UserError
from plait.objectives import affinity_mimicking, feature_mse, info_nce_plain, interactive_contrast


def unit(rows: int, width: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return nn.functional.normalize(torch.randn(rows, width, dtype=torch.float64), dim=1)


def test_squared_distance_by_hand() -> None:
    """(1, 0) to (0, 1) is 2 apart, (1, 0) to (-1, 0) is 4; the mean is 3."""
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert feature_mse(student, teacher).item() == 3.0


def test_squared_distance_of_unit_rows_is_two_minus_two_cosines() -> None:
    student, teacher = unit(6, 5, 0), unit(6, 5, 1)
    cosines = nn.functional.cosine_similarity(student, teacher)
    torch.testing.assert_close(feature_mse(student, teacher), 2 - 2 * cosines.mean())


def test_affinities_of_two_pairs_by_hand() -> None:
    """The student sees its pairs at right angles, the teacher finds all four alike.

    The teacher's affinities are 1/2 each, the student's e / (e + 1) and 1 / (e + 1): the divergence
    is 1/2 log((e + 1) / 2e) + 1/2 log((e + 1) / 2) in each row and each column.
    """
    eye = torch.eye(2, dtype=torch.float64)
    alike = torch.tensor([[1.0, 0.0, 0.0]] * 2, dtype=torch.float64)
    expected = math.log((math.e + 1) / 2) - 0.5
    found = affinity_mimicking(eye, eye, 1.0, alike, alike, 7.0)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_affinities_that_agree_cost_nothing_and_ask_for_nothing() -> None:
    left, right = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1).requires_grad_()
    loss = affinity_mimicking(left, right, 3.0, left.detach(), right.detach(), 3.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-14)
    assert left.grad is not None
    torch.testing.assert_close(left.grad, torch.zeros_like(left), atol=1e-14, rtol=0)


def test_affinities_against_torch_s_divergence() -> None:
    left, right, one, other = unit(6, 4, 0), unit(6, 4, 1), unit(6, 9, 2), unit(6, 9, 3)
    own, theirs = 5.0 * left @ right.T, 11.0 * one @ other.T
    expected = sum(
        nn.functional.kl_div(
            a.log_softmax(1), b.log_softmax(1), log_target=True, reduction="batchmean"
        )
        for a, b in ((own, theirs), (own.T, theirs.T))
    )
    torch.testing.assert_close(affinity_mimicking(left, right, 5.0, one, other, 11.0), expected / 2)


def test_contrast_against_the_teacher_in_two_directions() -> None:
    left, right, one, other = unit(6, 4, 0), unit(6, 4, 1), unit(6, 4, 2), unit(6, 4, 3)
    ids = torch.tensor([0, 0, 1, 2, 3, 3])
    expected = (
        info_nce_plain(left, other, 4.0, ids, ids, direction="left")
        + info_nce_plain(right, one, 4.0, ids, ids, direction="left")
    ) / 2
    torch.testing.assert_close(interactive_contrast(left, right, 4.0, one, other, ids), expected)


def test_gradients_reach_the_student_alone() -> None:
    left, right = unit(4, 3, 0).requires_grad_(), unit(4, 3, 1).requires_grad_()
    one, other = unit(4, 3, 2).requires_grad_(), unit(4, 3, 3).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b, s: affinity_mimicking(a, b, s, one.detach(), other.detach(), 2.0),
        (left, right, scale),
    )
    assert torch.autograd.gradcheck(lambda a: feature_mse(a, one.detach()), (left,))
    (
        affinity_mimicking(left, right, scale, one, other, scale.detach())
        + feature_mse(left, one)
        + interactive_contrast(left, right, scale, one, other)
    ).backward()
    assert one.grad is None
    assert other.grad is None
    assert left.grad is not None


def test_refusals() -> None:
    rows, longer = unit(3, 2, 0), unit(3, 4, 1)
    with pytest.raises(UserError, match=r"the student's are \(3, 2\), the teacher's \(3, 4\)"):
        feature_mse(rows, longer)
    with pytest.raises(UserError, match=r"numbers of rows are \[2, 3\]"):
        affinity_mimicking(rows, rows, 1.0, longer[:2], longer, 1.0)
    with pytest.raises(UserError, match=r"interactive_contrast compares rows of one space"):
        interactive_contrast(rows, rows, 1.0, longer, longer)
