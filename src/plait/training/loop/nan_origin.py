"""Where a loss stopped being a number: the first module that gave infinity or NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Batch
from plait.core.errors import UserError
from plait.training.loop.update import Updater


class TrainingError(UserError):
    """Training cannot go on; the message says where it broke and what to change."""


def find_origin(model: nn.Module, updater: Updater, batch: Batch) -> str:
    """Runs a failing update again, without changing weights, and tells where it breaks.

    Looks in this order: the batch's own features, the weights, the output of every module in the
    order in which they finish, the loss, and the gradients.
    """
    for name, part in batch.modalities.items():
        for key, value in part.tensors.items():
            if not _finite(value):
                rows = (~torch.isfinite(value.flatten(1)).all(1)).nonzero().flatten().tolist()
                ids = ", ".join(batch.ids[row] for row in rows[:3])
                return f"the {key} of the {name} inputs themselves (first samples: {ids})"
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the weights {name}, which are not numbers already before this update"
    updater.optimiser.zero_grad(set_to_none=True)
    with _watching(model) as broken:
        loss = updater.backward(batch)
    if broken:
        return f"the output of {broken[0]}"
    if not _finite(loss.total):
        return "the loss itself, while every module's output is finite"
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of {name}, while the loss is finite"
    return "nothing this time: the second run of the same update was finite"


@contextmanager
def _watching(model: nn.Module) -> Iterator[list[str]]:
    """While it lasts, collects the modules whose output is not finite, the earliest first."""
    broken: list[str] = []

    def watch(name: str, module: nn.Module) -> Any:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            if not all(_finite(tensor) for tensor in _tensors(output)):
                broken.append(f"{name or 'the model'} ({type(module).__name__})")

        return module.register_forward_hook(look)

    handles = [watch(name, module) for name, module in model.named_modules()]
    try:
        yield broken
    finally:
        for handle in handles:
            handle.remove()


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
