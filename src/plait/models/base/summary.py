"""A model in one line, where torch would print its whole tree of modules."""

from __future__ import annotations

from torch import nn


def short_repr(model: nn.Module) -> str:
    """Its class, its parts by name, and how many parameters it has."""
    parts = []
    for name, child in model.named_children():
        named = child.items() if isinstance(child, nn.ModuleDict) else [(name, child)]
        parts += [f"{one}: {type(getattr(part, 'encoder', part)).__name__}" for one, part in named]
    parameters = list(model.parameters())
    total = sum(one.numel() for one in parameters)
    trained = sum(one.numel() for one in parameters if one.requires_grad)
    counted = f"{_count(total)} parameters"
    if trained != total:
        counted += f", {_count(trained)} of them trainable"
    return f"{type(model).__name__}({', '.join([*parts, counted])})"


def _count(number: int) -> str:
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {sign}"
    return str(number)
