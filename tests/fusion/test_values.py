"""Values of each fusion against the idea written a second time, and worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.fusion.made import THREE, TWO, everywhere, fusion, parts
from tests.fusion.reference import (
    Array,
    block,
    cross,
    mlp,
    pooled_of,
    sequential,
    tokens_of,
    weights_of,
)
from torch import Tensor

from plait.core.batch import Encoded
from plait.fusion.attention import CrossAttention, visible
from plait.fusion.base import Fusion
from plait.fusion.bottleneck import BottleneckFusion
from plait.fusion.co_attention import CoAttentionFusion
from plait.fusion.gated import GatedFusion
from plait.fusion.gated_cross_attention import GatedCrossAttentionFusion
from plait.fusion.late import LateFusion

torch.set_num_threads(1)

Row = tuple[Array, dict[str, Array]]
"""(pooled vector, real tokens by modality) of one sample."""

BOUND = 1e-12


def present_for(names: tuple[str, ...]) -> dict[str, Tensor]:
    """Row 1 lacks the first modality, row 2 all but the first."""
    present = everywhere(names)
    present[names[0]][1] = False
    for name in names[1:]:
        present[name][2] = False
    return present


def concat_row(built: Fusion, made, present, row: int) -> Row:
    w = weights_of(built)
    vectors = pooled_of(built, made, present, row)
    filled = [
        w.at(f"projections.{name}").linear(vectors[name]) if name in vectors else w["absent"][place]
        for place, name in enumerate(built.modalities)
    ]
    return sequential(w.at("mlp"), np.concatenate(filled)), {}


def late_row(built: Fusion, made, present, row: int) -> Row:
    w = weights_of(built)
    vectors = pooled_of(built, made, present, row)
    strength = {
        name: math.exp(w["scores"][place])
        for place, name in enumerate(built.modalities)
        if name in vectors
    }
    total = sum(strength.values())
    decisions = [
        strength[name] / total * sequential(w.at(f"heads.{name}"), vector)
        for name, vector in vectors.items()
    ]
    return np.sum(decisions, axis=0), {}


def gated_row(built: Fusion, made, present, row: int) -> Row:
    w = weights_of(built)
    vectors = pooled_of(built, made, present, row)
    sizes = {name: made[name].pooled.shape[1] for name in built.modalities}
    together = np.concatenate([vectors.get(name, np.zeros(sizes[name])) for name in sizes])
    gates = w.at("gates").linear(together).reshape(len(sizes), -1)
    result = np.zeros(built.width)
    for feature in range(built.width):
        raised = {
            name: math.exp(gates[place, feature])
            for place, name in enumerate(built.modalities)
            if name in vectors
        }
        for name, vector in vectors.items():
            content = math.tanh(w.at(f"contents.{name}").linear(vector)[feature])
            result[feature] += raised[name] / sum(raised.values()) * content
    return result, {}


def deep_set_row(built: Fusion, made, present, row: int) -> Row:
    w = weights_of(built)
    total = np.zeros(built.width)
    for tokens in tokens_of(built, made, present, row).values():
        for token in tokens:
            total = total + sequential(w.at("phi"), token)
    return sequential(w.at("rho"), w.at("rho.0").norm(total), first=1), {}


def intermediate_row(built: Fusion, made, present, row: int) -> Row:
    w, spec = weights_of(built), built.spec()
    heads, own = spec["heads"], spec.get("fuse_at", 0)
    tokens = tokens_of(built, made, present, row)
    for name in tokens:
        for layer in range(own):
            tokens[name] = block(w.at(f"own.{name}.{layer}"), tokens[name], heads)
    x = np.concatenate([w["joint.class_token"][None], *tokens.values()])
    for layer in range(spec["layers"] - own):
        x = block(w.at(f"joint.blocks.{layer}"), x, heads)
    x = w.at("joint.norm").norm(x)
    ends = np.cumsum([1, *(len(part) for part in tokens.values())])
    return x[0], {name: x[a:b] for name, a, b in zip(tokens, ends, ends[1:])}


def co_attention_row(built: Fusion, made, present, row: int) -> Row:
    w, spec = weights_of(built), built.spec()
    heads = spec["heads"]
    x = {
        name: np.concatenate([w["class_tokens"][built.modalities.index(name)][None], tokens])
        for name, tokens in tokens_of(built, made, present, row).items()
    }
    for layer in range(spec["layers"]):
        after = {}
        for name, own in x.items():
            stream = w.at(f"layers.{layer}.{name}")
            asks, new = stream.at("cross"), own
            others = [x[other] for other in x if other != name]
            if others:
                context = asks.at("norm_context").norm(np.concatenate(others))
                new = own + cross(asks.at("attention"), asks.at("norm").norm(own), context, heads)
            new = new + mlp(asks.at("mlp"), asks.at("norm_mlp").norm(new))
            after[name] = block(stream.at("own"), new, heads)
        x = after
    x = {name: w.at(f"norms.{name}").norm(stream) for name, stream in x.items()}
    pooled = [
        np.maximum(w.at(f"poolers.{name}").linear(stream[0]), 0) for name, stream in x.items()
    ]
    joined = np.prod(pooled, axis=0) if spec["join"] == "product" else np.sum(pooled, axis=0)
    return joined, {name: stream[1:] for name, stream in x.items()}


def bottleneck_row(built: Fusion, made, present, row: int) -> Row:
    w, spec = weights_of(built), built.spec()
    x = {
        name: np.concatenate([w["class_tokens"][built.modalities.index(name)][None], tokens])
        for name, tokens in tokens_of(built, made, present, row).items()
    }
    shared = w["bottleneck"]
    for layer in range(spec["layers"]):
        copies = []
        for name, stream in x.items():
            weights = w.at(f"own.{name}.{layer}")
            if layer < spec["fuse_at"]:
                x[name] = block(weights, stream, spec["heads"])
                continue
            both = block(weights, np.concatenate([stream, shared]), spec["heads"])
            x[name] = both[: len(stream)]
            copies.append(both[len(stream) :])
        if copies:
            shared = np.mean(copies, axis=0)
    x = {name: w.at(f"norms.{name}").norm(stream) for name, stream in x.items()}
    starts = np.mean([stream[0] for stream in x.values()], axis=0)
    return starts, {name: stream[1:] for name, stream in x.items()}


def gated_cross_row(built: Fusion, made, present, row: int) -> Row:
    w, spec = weights_of(built), built.spec()
    asks = spec["asks"]
    others = [x for name, x in tokens_of(built, made, present, row).items() if name != asks]
    tokens, first = np.zeros((0, built.width)), w["absent"]
    if present[asks][row]:
        part = made[asks]
        tokens = part.tokens[row].numpy()[part.mask[row].numpy()]
        first = part.pooled[row].numpy()
        if spec["widths"][asks] != spec["token_widths"][asks]:
            first = w.at("start").linear(first)
    x = np.concatenate([first[None], tokens])
    for layer in range(spec["layers"]):
        one = w.at(f"blocks.{layer}")
        if others:
            context = w.at("norm").norm(np.concatenate(others))
            found = cross(one.at("attention"), one.at("norm").norm(x), context, spec["heads"])
            x = x + np.tanh(one["gate"]) * found
        x = x + np.tanh(one["gate_mlp"]) * mlp(one.at("mlp"), one.at("norm_mlp").norm(x))
    return x[0], {asks: x[1:]} if present[asks][row] else {}


CASES: dict[str, tuple[str, Callable[..., Row], dict]] = {
    "concat": ("concat", concat_row, {}),
    "late": ("late", late_row, {}),
    "gated": ("gated", gated_row, {}),
    "deep_set": ("deep_set", deep_set_row, {}),
    "shared_attention": ("shared_attention", intermediate_row, {}),
    "intermediate": ("intermediate", intermediate_row, {"layers": 3, "fuse_at": 1}),
    "co_attention": ("co_attention", co_attention_row, {}),
    "co_attention, sum": ("co_attention", co_attention_row, {"join": "sum", "layers": 1}),
    "bottleneck": ("bottleneck", bottleneck_row, {}),
    "bottleneck, one token": (
        "bottleneck",
        bottleneck_row,
        {"bottlenecks": 1, "layers": 3, "fuse_at": 0},
    ),
    "gated_cross_attention": ("gated_cross_attention", gated_cross_row, {"heads": 2}),
    "gated_cross_attention, image": ("gated_cross_attention", gated_cross_row, {"asks": "image"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("names", [TWO, THREE], ids=["two", "three"])
def test_against_one_sample_at_a_time_in_numpy(case: str, names: tuple[str, ...]) -> None:
    kind, by_hand, options = CASES[case]
    built, made, present = fusion(kind, names, **options), parts(names), present_for(names)
    with torch.no_grad():
        fused = built(made, present)
    for row in range(4):
        pooled, tokens = by_hand(built, made, present, row)
        np.testing.assert_allclose(fused.pooled[row].numpy(), pooled, rtol=0, atol=BOUND)
        for name, part in fused.parts.items():
            kept = part.mask[row]
            expected = tokens.get(name, np.zeros((0, built.width)))
            np.testing.assert_allclose(part.tokens[row][kept].numpy(), expected, rtol=0, atol=BOUND)
            assert not part.tokens[row][~kept].any()


def test_two_gates_are_the_sigmoid_of_the_papers_two_modal_unit() -> None:
    built, made = fusion("gated"), parts()
    assert isinstance(built, GatedFusion)
    vectors, _ = built.inputs(made, everywhere())
    own = built.gates.weight.chunk(2), built.gates.bias.chunk(2)
    together = torch.cat(vectors, dim=1)
    z = torch.sigmoid(together @ (own[0][0] - own[0][1]).T + own[1][0] - own[1][1])
    image, text = (built.contents[name](v).tanh() for name, v in zip(TWO, vectors))
    torch.testing.assert_close(
        built(made, everywhere()).pooled, z * image + (1 - z) * text, rtol=0, atol=BOUND
    )


def test_gates_by_hand() -> None:
    # Layer norm of (1, -1) is (1, -1) / sqrt(1 + 1e-5); gates ln 3 and 0 give shares 3/4 and 1/4.
    built = GatedFusion({"image": 2, "text": 2}, width=1).double()
    with torch.no_grad():
        for name, value in (("image", 0.5), ("text", -2.0)):
            built.contents[name].weight[:] = torch.tensor([[value, 0.0]])
            built.contents[name].bias.zero_()
        built.gates.weight.zero_()
        built.gates.bias[:] = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64)
    vector = torch.tensor([[1.0, -1.0]]).double()
    one = Encoded(torch.zeros(1, 1, 2).double(), torch.ones(1, 1, dtype=torch.bool), vector)
    unit = 1 / math.sqrt(1 + 1e-5)
    both = built({"image": one, "text": one}, everywhere(rows=1)).pooled.item()
    expected = 0.75 * math.tanh(0.5 * unit) + 0.25 * math.tanh(-2 * unit)
    assert both == pytest.approx(expected, abs=1e-12)
    alone = everywhere(rows=1) | {"image": torch.tensor([False])}
    text_only = built({"image": one, "text": one}, alone).pooled.item()
    assert text_only == pytest.approx(math.tanh(-2 * unit), abs=1e-12)


def test_late_weights_by_hand_and_as_an_average_of_logits() -> None:
    built, made = fusion("late", THREE), parts(THREE)
    assert isinstance(built, LateFusion)
    with torch.no_grad():
        built.scores[:] = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).log()
    vectors, _ = built.inputs(made, everywhere(THREE))
    decisions = [built.heads[name](v) for name, v in zip(built.modalities, vectors)]
    full = built(made, everywhere(THREE)).pooled
    expected = (1 * decisions[0] + 2 * decisions[1] + 5 * decisions[2]) / 8
    torch.testing.assert_close(full, expected, rtol=0, atol=BOUND)
    lacking = everywhere(THREE)
    lacking[built.modalities[1]][:] = False
    renormalised = (1 * decisions[0] + 5 * decisions[2]) / 6
    torch.testing.assert_close(built(made, lacking).pooled, renormalised, rtol=0, atol=BOUND)
    output = torch.nn.Linear(built.width, 5).double()
    average = (1 * output(decisions[0]) + 2 * output(decisions[1]) + 5 * output(decisions[2])) / 8
    torch.testing.assert_close(output(full), average, rtol=0, atol=BOUND)


def test_intermediate_at_layer_0_is_shared_attention() -> None:
    shared = fusion("shared_attention", THREE, layers=2)
    early = fusion("intermediate", THREE, layers=2, fuse_at=0)
    early.load_state_dict(shared.state_dict())
    one, other = (built(parts(THREE), everywhere(THREE)) for built in (shared, early))
    assert torch.equal(one.pooled, other.pooled)


@pytest.mark.parametrize("asks", ["text", "image"])
def test_shut_gates_leave_the_asking_modality_exactly_as_it_was(asks: str) -> None:
    widths = {"image": 12, "text": 6}
    built = GatedCrossAttentionFusion(widths, widths, width=8, asks=asks).double()
    generator = torch.Generator().manual_seed(3)
    made = {
        name: Encoded(
            torch.randn(2, 3, width, generator=generator, dtype=torch.float64),
            torch.ones(2, 3, dtype=torch.bool),
            torch.randn(2, width, generator=generator, dtype=torch.float64),
        )
        for name, width in widths.items()
    }
    fused = built(made, everywhere(rows=2))
    assert torch.equal(fused.pooled, made[asks].pooled)
    assert torch.equal(fused.parts[asks].tokens, made[asks].tokens)
    assert built.width == widths[asks]
    fused.pooled.square().sum().backward()
    for one in built.blocks:
        assert one.gate.grad != 0 and one.gate_mlp.grad != 0  # the gates themselves can open
    with torch.no_grad():
        built.blocks[0].gate.fill_(0.5)
    assert not torch.equal(built(made, everywhere(rows=2)).pooled, made[asks].pooled)


def test_modalities_meet_only_through_the_bottleneck() -> None:
    """What text does in one layer reaches the picture's tokens in the next, and no sooner."""
    made = parts()
    other = made | {"text": parts(seed=7)["text"]}
    built = fusion("bottleneck", layers=2, fuse_at=0)
    one, two = (built(x, everywhere()).parts["image"].tokens for x in (made, other))
    assert (one - two).abs().max() > 1e-6
    assert isinstance(built, BottleneckFusion)
    built.layers = 1  # only the layer that writes
    one, two = (built(x, everywhere()).parts["image"].tokens for x in (made, other))
    assert torch.equal(one, two)


def test_streams_read_one_another_as_they_were_before_the_layer() -> None:
    built = fusion("co_attention", layers=1)
    assert isinstance(built, CoAttentionFusion)
    made = parts()
    before = built(made, everywhere())
    with torch.no_grad():  # what a stream does after asking must not be seen by the other
        for parameter in built.layers[0]["text"].parameters():
            parameter.add_(1.0)
    after = built(made, everywhere())
    assert torch.equal(before.parts["image"].tokens, after.parts["image"].tokens)
    assert not torch.equal(before.parts["text"].tokens, after.parts["text"].tokens)


def test_a_row_without_keys_sees_all_and_finds_nothing() -> None:
    real = torch.tensor([[True, False, True], [False, False, False]])
    assert visible(real)[:, 0, 0].tolist() == [[True, False, True], [True, True, True]]
    attention = CrossAttention(4, 6, heads=2).double()
    x, context = torch.randn(2, 5, 4).double(), torch.randn(2, 3, 6).double()
    found = attention(x, context, real)
    assert not found[1].any() and found[0].abs().min() > 0
    alone = attention(x[:1], context[:1, [0, 2]], real[:1, [0, 2]])
    torch.testing.assert_close(found[:1], alone, rtol=0, atol=BOUND)
