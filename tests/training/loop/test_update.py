"""What an update does with the gradients of other processes, which are made up here."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from plait.core.batch import Batch, ModalityInput
from plait.training.loop.task import TaskLoss
from plait.training.loop.update import Updater


class Other:
    """An accelerator of two processes; the other one has said beforehand what it will exchange."""

    num_processes = 2
    device = torch.device("cpu")

    def __init__(self, *said: list[float]) -> None:
        self.said = [torch.tensor(one) for one in said]

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        total = tensor + self.said.pop(0)
        return total / 2 if reduction == "mean" else total

    def gather(self, tensor: Tensor) -> Tensor:
        """The other process trains on the same things."""
        return torch.cat([tensor, tensor])


class Parts(nn.Module):
    """Three parameters of one number, 1 each; the loss is twice the first."""

    def __init__(self) -> None:
        super().__init__()
        self.here, self.there, self.nowhere = (nn.Parameter(torch.ones(1)) for _ in range(3))

    def loss(self, batch: Batch) -> TaskLoss:
        total = 2 * self.here.sum()
        return TaskLoss(total, {"twice": total.detach()})


def test_parameters_without_a_gradient_anywhere_stay_as_they_are() -> None:
    """Weight decay alone would move them, and so would what AdamW remembers."""
    model = Parts()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for group in optimiser.param_groups:
        group["base_lr"] = 0.1
    # The other process: gradients of the second alone; then loss 4, its part 4, gradients 0 and 6.
    accelerator = Other([0.0, 1.0, 0.0], [4.0, 4.0, 0.0, 6.0])
    batch = Batch(["a"], torch.arange(1), {"image": ModalityInput.of(features=torch.ones(1, 1))})
    record = Updater(model, model, optimiser, accelerator)(batch, 1.0)
    assert not accelerator.said
    assert model.here.grad is not None and model.here.grad.item() == 1
    assert model.there.grad is not None and model.there.grad.item() == 3
    assert model.nowhere.grad is None
    assert model.nowhere.item() == 1
    assert model.here.item() < 1 and model.there.item() < 1
    assert record.loss == 3 and record.parts == {"twice": 3.0}
    assert record.grad_norm == pytest.approx(10**0.5)
    assert record.rows == 2
    assert record.floor == pytest.approx(math.log(2))  # both rows show one thing
