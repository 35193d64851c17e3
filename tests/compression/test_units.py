"""Which units of a block can be taken out, for every kind of block, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from plait.compression.units import Group, groups_of


def block(**parts: Any) -> nn.Module:
    """A module with the given submodules and attributes; an encoder with it is named ``b``."""
    inner = nn.Module()
    for name, part in parts.items():
        setattr(inner, name, part)
    outer = nn.Module()
    outer.b = inner
    return outer


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, groups=groups)


def inverted(**changed: Any) -> nn.Module:
    parts = {
        "conv_pw": conv(4, 8), "bn1": nn.BatchNorm2d(8), "conv_dw": conv(8, 8, 8),
        "bn2": nn.BatchNorm2d(8), "conv_pwl": conv(8, 4),
    }  # fmt: skip
    return block(**{**parts, **changed})


def squeeze(**parts: nn.Module) -> nn.Module:
    return block(**parts).b  # type: ignore[return-value]


def test_expanded_channels() -> None:
    through = ("b.bn1", "b.conv_dw", "b.bn2")
    plain = Group((("b.conv_pw", 1),), "b.conv_pwl", 8, through)
    assert groups_of(inverted()) == [plain]
    assert groups_of(inverted(se=nn.Identity())) == [plain]
    se = squeeze(conv_reduce=conv(8, 2), conv_expand=conv(2, 8))
    assert groups_of(inverted(se=se)) == [
        Group(
            (("b.conv_pw", 1), ("b.se.conv_expand", 1)),
            "b.conv_pwl",
            8,
            through,
            ("b.se.conv_reduce",),
        )
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"conv_pw": conv(4, 8, 2)},
        {"conv_pwl": conv(8, 4, 2)},
        {"conv_dw": conv(8, 8)},
        {"conv_dw": conv(8, 16, 8)},
        {"conv_dw": nn.Linear(8, 8)},
        {"bn2": nn.Identity()},
        {"se": squeeze(conv_reduce=conv(8, 2))},
    ],
)
def test_what_looks_like_expanded_channels_and_is_not(changed: dict[str, nn.Module]) -> None:
    assert groups_of(inverted(**changed)) == []


def fused(**changed: Any) -> nn.Module:
    parts = {"conv_exp": conv(4, 8), "bn1": nn.BatchNorm2d(8), "conv_pwl": conv(8, 4)}
    return block(**{**parts, **changed})


def test_one_convolution_that_expands() -> None:
    expected = [Group((("b.conv_exp", 1),), "b.conv_pwl", 8, ("b.bn1",))]
    assert groups_of(fused()) == groups_of(fused(se=nn.Identity())) == expected
    for changed in (
        {"se": squeeze(conv_reduce=conv(8, 2))},
        {"conv_exp": conv(4, 8, 2)},
        {"conv_pwl": conv(8, 4, 4)},
        {"bn1": None},
    ):
        assert groups_of(fused(**changed)) == []


def test_channels_between_the_convolutions_of_a_block() -> None:
    parts: dict[str, Any] = {
        "conv1": conv(4, 6), "bn1": nn.BatchNorm2d(6), "conv2": conv(6, 5),
        "bn2": nn.BatchNorm2d(5), "conv3": conv(5, 4),
    }  # fmt: skip
    first = Group((("b.conv1", 1),), "b.conv2", 6, ("b.bn1",))
    second = Group((("b.conv2", 1),), "b.conv3", 5, ("b.bn2",))
    assert groups_of(block(**parts, downsample=None)) == [first, second]
    assert groups_of(block(**parts)) == []  # no residual block
    grouped = {**parts, "conv2": conv(6, 5)}
    del grouped["conv3"]
    assert groups_of(block(**grouped, downsample=None)) == [first]
    assert groups_of(block(**{**parts, "conv3": conv(5, 5, 5)}, downsample=None)) == [first]
    assert groups_of(block(**{**parts, "conv1": conv(4, 6, 2)}, downsample=None)) == [second]


@pytest.mark.parametrize(("first", "second"), [("up", "project"), ("up", "down"), ("fc1", "fc2")])
def test_hidden_units(first: str, second: str) -> None:
    found = groups_of(block(**{first: nn.Linear(4, 7), second: nn.Linear(7, 4)}))
    assert found == [Group(((f"b.{first}", 1),), f"b.{second}", 7)]
    assert groups_of(block(**{first: nn.Linear(4, 7), second: nn.Linear(3, 4)})) == []
    assert groups_of(block(**{first: conv(4, 6, 2), second: conv(6, 4)})) == []
    for name in ("norm", "bn", "grn"):
        layers = {first: nn.Linear(4, 7), second: nn.Linear(7, 4)}
        between = groups_of(block(**layers, **{name: nn.LayerNorm(7)}))
        assert len(between) == (0 if first == "fc1" else 1)  # only timm puts something there
        assert groups_of(block(**layers, **{name: nn.Identity()})) == found


def test_hidden_units_of_bert_and_one_group_a_block() -> None:
    parts = {
        "intermediate": squeeze(dense=nn.Linear(4, 9)),
        "output": squeeze(dense=nn.Linear(9, 4)),
    }
    (found,) = groups_of(block(**parts))
    assert (found.makers, found.reader, found.units) == (
        (("b.intermediate.dense", 1),),
        "b.output.dense",
        9,
    )
    both = block(up=nn.Linear(4, 7), project=nn.Linear(7, 4), down=nn.Linear(7, 4))
    assert [one.reader for one in groups_of(both)] == ["b.project"]
    outermost = nn.Module()
    outermost.up, outermost.down = nn.Linear(4, 7), nn.Linear(7, 4)
    assert groups_of(outermost) == [Group((("up", 1),), "down", 7)]


@pytest.mark.parametrize(("out", "heads"), [("out", "heads"), ("proj", "num_heads")])
def test_heads(out: str, heads: str) -> None:
    """Queries, keys and values of 2 heads of 5 features: 30 rows."""
    layers = {"qkv": nn.Linear(10, 30), out: nn.Linear(10, 10)}
    expected = [Group((("b.qkv", 3),), f"b.{out}", 2, width=5, attention="b")]
    assert groups_of(block(**layers, **{heads: 2})) == expected
    for name in ("norm", "gate"):
        assert groups_of(block(**layers, **{heads: 2, name: nn.LayerNorm(10)})) == []
        assert groups_of(block(**layers, **{heads: 2, name: nn.Identity()})) == expected
    for count in (None, 2.0, 4):  # not told, no number of heads, or one that does not fit
        assert groups_of(block(**layers, **{heads: count})) == []
    assert groups_of(block(qkv=nn.Linear(10, 30), **{heads: 2})) == []


def test_heads_of_bert() -> None:
    inner = squeeze(query=nn.Linear(6, 6), key=nn.Linear(6, 6), value=nn.Linear(6, 6))
    inner.num_attention_heads = 3  # type: ignore[assignment]
    parts: dict[str, Any] = {"self": inner, "output": squeeze(dense=nn.Linear(6, 6))}
    (found,) = groups_of(block(**parts))
    makers = tuple((f"b.self.{name}", 1) for name in ("query", "key", "value"))
    assert found == Group(makers, "b.output.dense", 3, width=2, attention="b.self")
    inner.num_attention_heads = None  # type: ignore[assignment]
    assert groups_of(block(**parts)) == []
    inner.num_attention_heads = 3  # type: ignore[assignment]
    assert groups_of(block(self=inner)) == []
