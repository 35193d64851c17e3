"""What can be taken out of an encoder: the inner units of its blocks.

A group is one inner width of one residual block: hidden units of an MLP, expanded channels of a
convolutional block, heads of attention. The width between blocks stays, so that groups do not
depend on one another, and nothing that a skip connection carries is lost.

`FINDERS` is the table of blocks that are known, each by the names of its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Group:
    """Units between layers that make them and the one layer that reads them.

    Attributes:
        makers: names of the layers whose output rows belong to units, with how often the units
            stand one after the other in them (3 in a fused matrix of queries, keys and values).
        through: layers that work on each channel by itself: norms, depthwise convolutions.
        reads: further layers whose input columns belong to units (of squeeze and excitation).
        reader: the layer whose input columns belong to units, and whose output makes up for those
            that go.
        units: how many.
        width: features of a unit: 1 of channels, the head's width of attention.
        attention: the module that counts heads; None for channels.
    """

    makers: tuple[tuple[str, int], ...]
    reader: str
    units: int
    through: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    width: int = 1
    attention: str | None = None


Finder = Callable[[str, nn.Module], Iterator[Group]]


def groups_of(encoder: nn.Module) -> list[Group]:
    """All groups of an encoder, in the order of its modules."""
    found = []
    for name, module in encoder.named_modules():
        for finder in FINDERS:
            found += list(finder(f"{name}." if name else "", module))
    return found


def _layers(module: nn.Module, *names: str) -> list[Any] | None:
    """The named submodules, or None where one is missing or is no layer of weights."""
    found: list[Any] = []
    for name in names:
        part: object = module
        for step in name.split("."):
            part = getattr(part, step, None)
        if not isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            return None
        found.append(part)
    return found


def _plain(*layers: nn.Module) -> bool:
    """Whether convolutions mix all their channels."""
    return all(layer.groups == 1 for layer in layers if isinstance(layer, nn.Conv2d))


def _width(layer: nn.Module) -> int:
    return int(layer.weight.shape[0])  # type: ignore[union-attr, index]


def _inverted_residual(name: str, block: nn.Module) -> Iterator[Group]:
    """MobileNet and EfficientNet: expanded channels (Sandler et al. 2018)."""
    layers = _layers(block, "conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl")
    if layers is None or not _plain(layers[0], layers[4]):
        return
    depthwise = layers[2]
    if not isinstance(depthwise, nn.Conv2d) or depthwise.groups != depthwise.out_channels:
        return
    through, reads = ("bn1", "conv_dw", "bn2"), tuple[str, ...]()
    makers: tuple[tuple[str, int], ...] = ((f"{name}conv_pw", 1),)
    squeeze = getattr(block, "se", None)
    if squeeze is not None and not isinstance(squeeze, nn.Identity):
        if _layers(squeeze, "conv_reduce", "conv_expand") is None:
            return
        reads, makers = (f"{name}se.conv_reduce",), (*makers, (f"{name}se.conv_expand", 1))
    yield Group(
        makers,
        f"{name}conv_pwl",
        _width(layers[0]),
        tuple(f"{name}{layer}" for layer in through),
        reads,
    )


def _fused_residual(name: str, block: nn.Module) -> Iterator[Group]:
    """EfficientNetV2's fused block: one convolution expands (Tan and Le 2021, figure 2)."""
    layers = _layers(block, "conv_exp", "bn1", "conv_pwl")
    squeeze = getattr(block, "se", None)
    if layers is None or not _plain(layers[0], layers[2]):
        return
    if squeeze is None or isinstance(squeeze, nn.Identity):
        through = (f"{name}bn1",)
        yield Group(((f"{name}conv_exp", 1),), f"{name}conv_pwl", _width(layers[0]), through)


def _residual(name: str, block: nn.Module) -> Iterator[Group]:
    """ResNet: the channels between the convolutions of a block (He et al. 2016)."""
    if not hasattr(block, "downsample"):
        return
    for first, norm, second in (("conv1", "bn1", "conv2"), ("conv2", "bn2", "conv3")):
        layers = _layers(block, first, norm, second)
        if layers is not None and _plain(layers[0], layers[2]):
            through = (f"{name}{norm}",)
            yield Group(((f"{name}{first}", 1),), f"{name}{second}", _width(layers[0]), through)


PAIRS = (("up", "project"), ("up", "down"), ("fc1", "fc2"), ("intermediate.dense", "output.dense"))


def _hidden(name: str, block: nn.Module) -> Iterator[Group]:
    """Two layers with an activation between: hidden units."""
    for first, second in PAIRS:
        layers = _layers(block, first, second)
        if layers is None or not _plain(*layers) or (first == "fc1" and _sized(block)):
            continue
        if int(layers[1].weight.shape[1]) == _width(layers[0]):
            yield Group(((f"{name}{first}", 1),), f"{name}{second}", _width(layers[0]))
            return


def _sized(block: nn.Module) -> bool:
    """Whether timm put something between the two layers that has their width."""
    between = (getattr(block, name, None) for name in ("norm", "bn", "grn"))
    return any(part is not None and not isinstance(part, nn.Identity) for part in between)


def _attention(name: str, block: nn.Module) -> Iterator[Group]:
    """Heads of self-attention, of plait's own modules, timm's and BERT's."""
    for fused, out, heads in (("qkv", "out", "heads"), ("qkv", "proj", "num_heads")):
        layers = _layers(block, fused, out)
        count = getattr(block, heads, None)
        if layers is None or not isinstance(count, int) or _width(layers[0]) % (3 * count):
            continue
        scaled = getattr(block, "norm", None), getattr(block, "gate", None)
        if any(part is not None and not isinstance(part, nn.Identity) for part in scaled):
            continue
        width, attention = _width(layers[0]) // (3 * count), name.removesuffix(".")
        yield Group(
            ((f"{name}{fused}", 3),), f"{name}{out}", count, width=width, attention=attention
        )
    parts = ("self.query", "self.key", "self.value", "output.dense")
    layers, inner = _layers(block, *parts), getattr(block, "self", None)
    count = getattr(inner, "num_attention_heads", None)
    if layers is not None and isinstance(count, int):
        makers = tuple((f"{name}{part}", 1) for part in parts[:3])
        width, attention = _width(layers[0]) // count, f"{name}self"
        yield Group(makers, f"{name}{parts[3]}", count, width=width, attention=attention)


FINDERS: tuple[Finder, ...] = (_inverted_residual, _fused_residual, _residual, _hidden, _attention)
