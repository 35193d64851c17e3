"""Gradients that can be used but not differentiated again, with an error that says so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def once(name: str, gradient: Tensor | None, *sources: Tensor) -> Tensor | None:
    """Marks a gradient computed by hand: differentiating it raises `NotImplementedError`.

    Args:
        name: of the function; ``name`` + "_plain" is recommended instead.
        gradient: what backward is about to return.
        sources: the tensors that it depends on.
    """
    if gradient is None or not torch.is_grad_enabled():  # no create_graph: nothing to guard
        return gradient
    return _Once.apply(name, gradient, *sources)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, name: str, gradient: Tensor, *sources: Tensor) -> Tensor:
        ctx.name = name
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            f"plait.objectives.{ctx.name} has no second derivatives, because its gradients are "
            f"computed by hand; plait.objectives.{ctx.name}_plain has them"
        )
