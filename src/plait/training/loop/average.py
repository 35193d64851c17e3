"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages the trainable parameters of a model over its updates.

    After update t the decay is min(decay, (1 + t) / (10 + t)), so that the random weights of the
    start are soon forgotten.

    Args:
        model: whose parameters to follow.
        decay: share of the old average kept at an update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.decay, self.updates = decay, 0
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes the model's current weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        current = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.values.values()), current, 1 - decay)

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor], updates: int) -> None:
        """Puts back a saved average."""
        self.updates = updates
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def exchange(self) -> None:
        """Swaps the model's weights with the average."""
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model computes with the average inside."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()
