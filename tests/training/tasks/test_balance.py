"""Weights of tasks from the gradients of the whole batch, also where processes share it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from plait.training.tasks.balance import Balance


class Shared(nn.Module):
    """Two shared weights; the loss of a task is a . w, so that its gradient is a."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.Linear(2, 1, bias=False)

    def loss(self, gradient: list[float]) -> Tensor:
        return (self.joint.weight * torch.tensor([gradient])).sum()


def test_gradients_are_measured_after_the_mean_over_processes() -> None:
    """Here answer has (3, 0) and there (0, 4): together (1.5, 2) of norm 2.5, not 3 or 3.5."""
    model, balance = Shared(), Balance(["answer", "match"], "gradients")
    there = iter([torch.tensor([0.0, 4.0]), torch.tensor([10.0, 0.0])])
    losses = {"answer": model.loss([3.0, 0.0]), "match": model.loss([0.0, 0.0])}
    total, notes = balance(
        losses, {"answer": 1.0, "match": 2.0}, model, lambda own: (own + next(there)) / 2
    )
    assert balance.norms.tolist() == pytest.approx([2.5, 5.0])
    assert notes["agreement/answer-match"].item() == pytest.approx(1.5 / 2.5)
    # Scaled to the mean norm of 3.75: by 1.5 and 0.75, and the second weighs twice.
    expected = 1.5 * losses["answer"] + 2 * 0.75 * losses["match"]
    assert total.item() == pytest.approx(expected.item())


def test_alone_the_gradients_are_those_of_the_batch() -> None:
    model, balance = Shared(), Balance(["answer", "match"], "gradients")
    losses = {"answer": model.loss([3.0, 4.0]), "match": model.loss([-4.0, 3.0])}
    _, notes = balance(losses, {"answer": 1.0, "match": 1.0}, model)
    assert balance.norms.tolist() == pytest.approx([5.0, 5.0])
    assert notes["agreement/answer-match"].item() == pytest.approx(0.0, abs=1e-7)
