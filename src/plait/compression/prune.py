"""Structured pruning: which inner units of an encoder go, and how the others make up for them.

For each group (`plait.compression.units`) one pass over calibration inputs gathers the second
moments of what its reader takes in. With ``y = W h`` of the reader, the share of unit j in its
output is ``E[h_j^2] |W_j|^2``. Units go in the order of that share for each multiply-add they save,
until the encoder is as much cheaper as asked. The reader's weights are then fitted anew by least
squares, ``W' = W S[:, kept] S[kept, kept]^-1`` with S the (regularised) second moments, after He et
al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", equation 5; centred, with a
new bias, where the reader has one.

Shape legend: h features that a reader takes in, o those it gives, U units of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from plait.compression.cost import multiply_adds, own_copy
from plait.compression.units import Group, groups_of
from plait.core.errors import UserError
from plait.encoders.base.base import Encoder
from plait.encoders.compose.narrowed import Narrowed, narrow, narrowed, sizes_of
from plait.engines.tower import PooledTower, evaluating

KEPT: Final = 0.25  # of the units of a group, at least, and one
RIDGE: Final = 1e-3  # of the mean of the diagonal of S
Batches = Sequence[Mapping[str, np.ndarray]]


@dataclass
class Moments:
    """What a reader took in and gave, summed over positions."""

    second: Tensor | None = None
    squares: Tensor | None = None
    first: Tensor | None = None
    count: int = 0


@dataclass(frozen=True)
class Pruned:
    """An encoder that was pruned.

    Attributes:
        encoder: with its weights.
        before, after: multiply-adds of one row.
        kept: of each group's reader, (units kept, units before).
    """

    encoder: Narrowed
    before: int
    after: int
    kept: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def prune(encoder: Encoder, fraction: float, batches: Batches) -> Pruned:
    """A copy of an encoder that needs ``fraction`` fewer multiply-adds.

    Args:
        encoder: read only.
        fraction: of its multiply-adds that go, about.
        batches: calibration inputs, as engines take them.

    Raises:
        UserError: a fraction out of range, or more than its blocks can spare.
    """
    if not 0 < fraction < 1:
        raise UserError(f"--prune {fraction:g}: give the share that goes, above 0 and below 1")
    before = multiply_adds(encoder, batches[0])
    copied = own_copy(encoder)
    inner = copied.inner if isinstance(copied, Narrowed) else copied
    groups = groups_of(inner)
    moments, costs = _observe(copied, inner, groups, batches)
    shares = [_shares(inner, group, moments[group.reader]) for group in groups]
    gone = _choose(groups, shares, costs, fraction * before, encoder.modality)
    kept, modules = {}, dict(inner.named_modules())
    for group, places in zip(groups, gone, strict=True):
        if places:
            stay = [unit for unit in range(group.units) if unit not in places]
            _cut(modules, group, stay, moments[group.reader])
            kept[group.reader] = len(stay), group.units
    made = narrowed(copied, _changed(encoder, modules))
    return Pruned(made, before, multiply_adds(made, batches[0]), kept)


def _changed(encoder: Encoder, modules: Mapping[str, nn.Module]) -> dict[str, dict[str, int]]:
    """The modules whose sizes differ from what they were."""
    original = encoder.inner if isinstance(encoder, Narrowed) else encoder
    old = dict(original.named_modules())
    found = {name: sizes_of(module) for name, module in modules.items()}
    return {name: sizes for name, sizes in found.items() if sizes and sizes != sizes_of(old[name])}


def _observe(
    encoder: Encoder, inner: nn.Module, groups: Sequence[Group], batches: Batches
) -> tuple[dict[str, Moments], dict[str, float]]:
    """What every reader takes in; and the multiply-adds of every layer for each row."""
    modules = dict(inner.named_modules())
    moments = {group.reader: Moments() for group in groups}
    work: dict[str, float] = {}
    rows = sum(len(next(iter(batch.values()))) for batch in batches)

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight: Any = module.weight
            if weight.ndim > 1:
                places = output.numel() / weight.shape[0]
                work[name] = work.get(name, 0.0) + places * weight.numel() / rows
            if name in moments:
                _add(moments[name], module, inputs[0])

        return hook

    names = dict.fromkeys(
        name
        for group in groups
        for name in (*(maker for maker, _ in group.makers), *group.through, group.reader)
    )
    handles = [modules[name].register_forward_hook(watch(name)) for name in names]
    tower = PooledTower(encoder, list(batches[0]))
    device = next(encoder.parameters()).device
    try:
        with evaluating(encoder), torch.no_grad():
            for batch in batches:
                tower(
                    *(torch.as_tensor(np.ascontiguousarray(v)).to(device) for v in batch.values())
                )
    finally:
        for handle in handles:
            handle.remove()
    return moments, work


def _add(moments: Moments, module: nn.Module, taken: Tensor) -> None:
    """Adds what a reader takes in; whole second moments only where each position stands alone."""
    if isinstance(module, nn.Conv2d):
        rows = taken.movedim(1, -1).flatten(0, -2)
    else:
        rows = taken.flatten(0, -2)
    rows = rows.double()
    squares = rows.square().sum(0)
    moments.squares = squares if moments.squares is None else moments.squares + squares
    moments.count += len(rows)
    if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
        return
    product, first = rows.T @ rows, rows.sum(0)
    moments.second = product if moments.second is None else moments.second + product
    moments.first = first if moments.first is None else moments.first + first


def _shares(inner: nn.Module, group: Group, moments: Moments) -> Tensor:
    """(U,) share of each unit in the energy of the reader's output."""
    reader = inner.get_submodule(group.reader)
    weight: Any = reader.weight
    norms = weight.detach().double().flatten(2).square().sum((0, 2)) if weight.ndim == 4 else None
    if norms is None:
        norms = weight.detach().double().square().sum(0)
    assert moments.squares is not None
    energy = (moments.squares / moments.count * norms).view(group.units, group.width).sum(1)
    return energy / energy.sum().clamp(min=1e-30)


def _choose(
    groups: Sequence[Group],
    shares: Sequence[Tensor],
    costs: Mapping[str, float],
    wanted: float,
    modality: str,
) -> list[set[int]]:
    """The units that go, by group: those of least share for each multiply-add first."""
    order, saved = [], 0.0
    for number, (group, share) in enumerate(zip(groups, shares, strict=True)):
        layers = (*(name for name, _ in group.makers), *group.through, group.reader)
        each = sum(costs.get(name, 0.0) for name in layers) / group.units
        if each > 0:
            order += [(float(s) / each, number, unit, each) for unit, s in enumerate(share)]
    order.sort()
    gone: list[set[int]] = [set() for _ in groups]
    most = [group.units - max(1, int(np.ceil(KEPT * group.units))) for group in groups]
    for _, number, unit, each in order:
        if saved >= wanted:
            break
        if len(gone[number]) < most[number]:
            gone[number].add(unit)
            saved += each
    if saved < 0.99 * wanted:
        raise UserError(
            f"--prune: the {modality} encoder's blocks can spare {saved:.3g} multiply-adds, "
            f"{wanted:.3g} are asked for: give a smaller share, or distil a smaller student"
        )
    return gone


def _cut(
    modules: Mapping[str, nn.Module], group: Group, stay: Sequence[int], moments: Moments
) -> None:
    """Takes units out of all layers of a group, and fits the reader anew."""
    reader = modules[group.reader]
    features = _features(stay, group.width)
    weight, bias = _fitted(reader, features, moments)
    for name, times in group.makers:
        width = group.units * group.width
        rows = torch.cat([features + k * width for k in range(times)])
        _keep(modules[name], "out", rows)
    for name in group.through:
        _keep(modules[name], "channels", features)
    for name in group.reads:
        _keep(modules[name], "in", features)
    _keep(reader, "in", features)
    with torch.no_grad():
        reader.weight.copy_(weight)  # type: ignore[operator, union-attr]
        if bias is not None:
            reader.bias.copy_(bias)  # type: ignore[operator, union-attr]
    if group.attention is not None:
        module = modules[group.attention]
        before = sizes_of(module)
        shrunk = {k: v * len(stay) // group.units for k, v in before.items()}
        narrow(module, shrunk)


def _features(stay: Sequence[int], width: int) -> Tensor:
    units = torch.tensor(list(stay), dtype=torch.long)
    return (units[:, None] * width + torch.arange(width)).flatten()


def _fitted(reader: nn.Module, kept: Tensor, moments: Moments) -> tuple[Tensor, Tensor | None]:
    """The reader's weight on the features that stay, and its bias where it has one."""
    weight: Any = reader.weight
    bias: Any = getattr(reader, "bias", None)
    old = weight.detach()
    if moments.second is None or moments.first is None:  # a window of positions: left as it is
        return old[:, kept], bias
    flat = old.flatten(1).double()
    second, mean = moments.second / moments.count, moments.first / moments.count
    if bias is not None:
        second = second - torch.outer(mean, mean)
    inside = second[kept][:, kept]
    ridge = RIDGE * inside.diagonal().mean().clamp(min=1e-12)
    inside = inside + ridge * torch.eye(len(kept), dtype=inside.dtype)
    fitted = torch.linalg.solve(inside, second[kept] @ flat.T).T
    shaped = fitted.to(old.dtype).view(len(old), len(kept), *old.shape[2:])
    if bias is None:
        return shaped, None
    shift = flat @ mean - fitted @ mean[kept]
    return shaped, (bias.detach().double() + shift).to(old.dtype)


def _keep(module: nn.Module, side: str, places: Tensor) -> None:
    """Leaves some rows (``out``), columns (``in``) or ``channels`` of a layer's tensors."""
    sizes = sizes_of(module)
    axis = 1 if side == "in" else 0
    old = {n: t.detach().clone() for n, t in (*module.named_parameters(), *module.named_buffers())}
    changed = {
        "out": ("out_features", "out_channels"),
        "in": ("in_features", "in_channels"),
        "channels": ("in_channels", "out_channels", "groups", "num_features", "num_channels"),
    }[side]
    narrow(module, {k: len(places) if k in changed else v for k, v in sizes.items()})
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.ndim == 0:
                continue
            source = old[name]
            if axis == 1 and tensor.ndim == 1:  # a bias has no columns
                tensor.copy_(source)
            else:
                tensor.copy_(source.index_select(axis, places))
