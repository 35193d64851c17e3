from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from plait.core.errors import UserError
from plait.objectives import info_nce_plain, softened_info_nce


def unit(rows: int, width: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return nn.functional.normalize(torch.randn(rows, width, dtype=torch.float64), dim=1)


def test_without_a_share_it_is_info_nce() -> None:
    left, right, ids = unit(7, 4, 0), unit(7, 4, 1), torch.tensor([0, 0, 1, 2, 3, 4, 4])
    found = softened_info_nce(left, right, 5.0, unit(7, 3, 2), ids, share=0.0)
    torch.testing.assert_close(found, info_nce_plain(left, right, 5.0, ids, ids))


def test_two_pairs_by_hand() -> None:
    """Teacher rows at right angles, temperature 1: each sees e/(e+1) in itself."""
    eye = torch.eye(2, dtype=torch.float64)
    share, own = 0.5, math.e / (math.e + 1)
    target = 1 - share + share * own
    scale = 2.0
    total = math.log(math.exp(scale) + 1)
    expected = -(target * (scale - total) + (1 - target) * (0 - total))
    found = softened_info_nce(eye, eye, scale, 3 * eye, share=share, temperature=1.0)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_gradients_and_none_for_the_teacher() -> None:
    left, right = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1).requires_grad_()
    teacher = unit(5, 3, 2).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b, s: softened_info_nce(a, b, s, teacher.detach()), (left, right, scale)
    )
    softened_info_nce(left, right, scale, teacher).backward()
    assert teacher.grad is None


def test_refusals() -> None:
    rows = unit(3, 2, 0)
    with pytest.raises(UserError, match="3 left rows, 3 right rows, 2 rows of the teacher"):
        softened_info_nce(rows, rows, 1.0, rows[:2])
    with pytest.raises(UserError, match=r"share 1\.5 is not in 0\.\.1"):
        softened_info_nce(rows, rows, 1.0, rows, share=1.5)
