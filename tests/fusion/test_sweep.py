"""Every registered fusion goes through the same checks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from tests.fusion.made import (
    KINDS,
    LENGTHS,
    POOLED,
    SMALL,
    THREE,
    TOKENS,
    TWO,
    assert_same,
    everywhere,
    fusion,
    numbers,
    padded,
    parts,
    rows_of,
    spoilt,
)

from plait.core.batch import Encoded, Fused
from plait.core.errors import ModelError
from plait.fusion.base import Fusion
from plait.fusion.inputs import TokenInputs
from plait.fusion.registry import build_fusion, fusion_from_spec

torch.set_num_threads(1)

every_kind = pytest.mark.parametrize("kind", KINDS)
two_or_three = pytest.mark.parametrize("names", [TWO, THREE], ids=["two", "three"])

KEEPS_TOKENS = {
    "intermediate": set(TWO),
    "shared_attention": set(TWO),
    "co_attention": set(TWO),
    "bottleneck": set(TWO),
    "gated_cross_attention": {"text"},
}


def small(kind: str, names: tuple[str, ...] = TWO) -> Fusion:
    return fusion(kind, names, **SMALL.get(kind, {}))


def some_absent(names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Row 0 has all, row 1 lacks the first modality, row 2 the second, row 3 has only the last."""
    present = everywhere(names)
    present[names[0]][1] = False
    present[names[1]][2] = False
    for name in names[:-1]:
        present[name][3] = False
    return present


def backward(fused: Fused) -> None:
    generator = torch.Generator().manual_seed(5)
    total = torch.zeros((), dtype=fused.pooled.dtype)
    for tensor in numbers(fused):
        weights = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        total = total + (tensor * weights.to(tensor.dtype)).sum()
    total.backward()


@every_kind
@two_or_three
def test_shapes_and_widths(kind: str, names: tuple[str, ...]) -> None:
    built = small(kind, names)
    fused = built(parts(names), everywhere(names))
    assert isinstance(fused, Fused)
    assert fused.pooled.shape == (4, built.width) and fused.pooled.dtype == torch.float64
    assert torch.isfinite(fused.pooled).all()
    assert set(built.modalities) == set(names)
    if names == TWO:
        assert set(fused.parts) == KEEPS_TOKENS.get(kind, set())
    made = parts(names)
    for name, part in fused.parts.items():
        assert part.tokens.shape == (4, LENGTHS[name], built.width)
        assert torch.equal(part.mask, made[name].mask)
        assert part.pooled.shape == (4, built.width)
        assert (part.boxes is not None) == (name == "image")
    single = built.float()(
        {
            name: Encoded(
                part.tokens.float(),
                part.mask,
                part.pooled.float(),
                None if part.boxes is None else part.boxes.float(),
            )
            for name, part in made.items()
        },
        everywhere(names),
    )
    torch.testing.assert_close(single.pooled.double(), fused.pooled, rtol=1e-4, atol=1e-4)


@every_kind
@two_or_three
def test_every_parameter_gets_a_gradient(kind: str, names: tuple[str, ...]) -> None:
    built = small(kind, names)
    backward(built(parts(names), some_absent(names)))
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@every_kind
def test_gradients_reach_every_encoder(kind: str) -> None:
    made = {
        name: replace(
            part,
            tokens=part.tokens.requires_grad_(),
            pooled=part.pooled.requires_grad_(),
        )
        for name, part in parts().items()
    }
    small(kind)(made, everywhere()).pooled.square().sum().backward()
    for part in made.values():
        reached = [g for g in (part.tokens.grad, part.pooled.grad) if g is not None]
        assert reached and all(torch.isfinite(g).all() for g in reached)
        assert max(g.abs().max() for g in reached) > 0


@every_kind
@two_or_three
@pytest.mark.parametrize("value", [7.0, math.nan, math.inf])
def test_padding_changes_nothing(kind: str, names: tuple[str, ...], value: float) -> None:
    built, made, present = small(kind, names), parts(names), everywhere(names)
    plain = built(made, present)
    longer = built(padded(made, 3, value), present)
    assert all(not part.tokens[:, LENGTHS[name] :].any() for name, part in longer.parts.items())
    cut = {
        name: Encoded(
            part.tokens[:, : LENGTHS[name]],
            part.mask[:, : LENGTHS[name]],
            part.pooled,
            None if part.boxes is None else part.boxes[:, : LENGTHS[name]],
        )
        for name, part in longer.parts.items()
    }
    assert_same(Fused(longer.pooled, cut), plain)
    backward(longer)
    assert all(torch.isfinite(p.grad).all() for p in built.parameters() if p.grad is not None)


@every_kind
@two_or_three
def test_the_order_of_samples_and_of_the_mapping_does_not_matter(kind, names) -> None:
    built, made, present = small(kind, names), parts(names), some_absent(names)
    plain = built(made, present)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = built(rows_of(made, order), {name: p[order] for name, p in present.items()})
    expected = Fused(plain.pooled[order], rows_of(plain.parts, order))
    assert_same(shuffled, expected)
    backwards = {name: made[name] for name in reversed(names)}
    assert_same(built(backwards, dict(reversed(present.items()))), plain)
    twin = small(kind, names[::-1])
    assert twin.modalities == built.modalities and twin.spec() == built.spec()
    twin.load_state_dict(built.state_dict())
    assert_same(twin(made, present), plain)


@every_kind
@two_or_three
def test_a_sample_alone_equals_it_in_company(kind: str, names: tuple[str, ...]) -> None:
    built, made, present = small(kind, names), parts(names), some_absent(names)
    together = built(made, present)
    for row in range(4):
        one = slice(row, row + 1)
        alone = built(rows_of(made, one), {name: p[one] for name, p in present.items()})
        assert_same(alone, Fused(together.pooled[one], rows_of(together.parts, one)))


@every_kind
@two_or_three
@pytest.mark.parametrize("value", [7.0, math.nan, math.inf])
def test_what_an_absent_modality_holds_changes_nothing(kind, names, value) -> None:
    present = some_absent(names)
    outcomes = []
    for filled in (0.0, value):
        built = small(kind, names)
        fused = built(spoilt(parts(names), present, filled), present)
        backward(fused)
        outcomes.append((fused, [parameter.grad for parameter in built.parameters()]))
    assert_same(outcomes[0][0], outcomes[1][0])
    for one, other in zip(outcomes[0][1], outcomes[1][1], strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@every_kind
def test_absence_itself_counts_and_present_content_too(kind: str) -> None:
    built, made = small(kind), parts()
    plain = built(made, everywhere()).pooled
    other = parts(seed=9)
    for name in TWO:
        lacking = everywhere()
        lacking[name][:] = False
        assert (built(made, lacking).pooled - plain).abs().amax(dim=1).min() > 1e-6
        changed = built(made | {name: other[name]}, everywhere()).pooled
        assert (changed - plain).abs().amax(dim=1).min() > 1e-6


@every_kind
@two_or_three
def test_a_modality_absent_everywhere_may_be_left_out(kind: str, names: tuple[str, ...]) -> None:
    for name in names:
        present = everywhere(names)
        present[name][:] = False
        built, made = small(kind, names), parts(names)
        fused = built(made, present)
        assert all(torch.isfinite(tensor).all() for tensor in numbers(fused))
        backward(fused)
        assert all(torch.isfinite(parameter.grad).all() for parameter in built.parameters())
        del made[name], present[name]
        built.zero_grad()
        left_out = built(made, present)
        torch.testing.assert_close(left_out.pooled, fused.pooled, rtol=0, atol=1e-12)
        backward(left_out)
        # Distributed training waits for the gradient of every parameter.
        assert all(parameter.grad is not None for parameter in built.parameters())


@every_kind
def test_a_present_modality_without_any_token_stays_finite(kind: str) -> None:
    built, made = small(kind), parts()
    made["text"].mask[1] = False
    plain = built(parts(), everywhere())
    fused = built(made, everywhere())
    backward(fused)
    assert all(torch.isfinite(tensor).all() for tensor in numbers(fused))
    assert all(torch.isfinite(parameter.grad).all() for parameter in built.parameters())
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(fused.pooled[others], plain.pooled[others], rtol=0, atol=1e-12)


@every_kind
def test_spec_round_trip(kind: str) -> None:
    built = small(kind, THREE)
    spec = json.loads(json.dumps(built.spec()))
    assert spec["kind"] == kind
    again = fusion_from_spec(spec).double()
    assert again.spec() == built.spec() and again.width == built.width
    again.load_state_dict(built.state_dict())
    assert_same(again(parts(THREE), everywhere(THREE)), built(parts(THREE), everywhere(THREE)), 0.0)


@every_kind
def test_places_of_picture_tokens_count_and_none_means_the_whole(kind: str) -> None:
    built, made = small(kind), parts()
    reads_tokens = any(isinstance(module, TokenInputs) for module in built.modules())
    image = made["image"]
    assert image.boxes is not None
    placed = built(made, everywhere()).pooled
    elsewhere = built(made | {"image": replace(image, boxes=image.boxes / 2)}, everywhere()).pooled
    if not reads_tokens:  # places are of tokens: pooled vectors have none
        assert torch.equal(placed, elsewhere)
        return
    assert (placed - elsewhere).abs().amax(dim=1).min() > 1e-6
    whole = torch.tensor([0.0, 0, 1, 1]).double().expand_as(image.boxes)
    one = built(made | {"image": replace(image, boxes=whole)}, everywhere()).pooled
    other = built(made | {"image": replace(image, boxes=None)}, everywhere()).pooled
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@every_kind
def test_messages(kind: str) -> None:
    widths = {"widths": dict(POOLED), "token_widths": dict(TOKENS)}
    with pytest.raises(ModelError, match=f"fusion '{kind}' has no option 'widht'"):
        build_fusion(kind, **widths, widht=3)
    with pytest.raises(ModelError, match="at least two modalities together, got text"):
        build_fusion(kind, widths={"text": 6}, token_widths={"text": 6})
    with pytest.raises(ModelError, match="no modality 'txt'; did you mean 'text'"):
        build_fusion(kind, widths={"txt": 6, "image": 5}, token_widths={"txt": 6, "image": 5})
    with pytest.raises(ModelError, match="widths are of text, image, token widths of audio, image"):
        build_fusion(kind, widths={"text": 6, "image": 5}, token_widths={"audio": 6, "image": 5})
    built = small(kind)
    with pytest.raises(ModelError, match="was built for image, text; it got 'audio' as well"):
        built(parts(THREE), everywhere(THREE))
    with pytest.raises(ModelError, match="was built for image, text; it got no modality"):
        built({}, {})


def test_unknown_kinds_and_options_that_do_not_fit() -> None:
    both = {"widths": {"text": 6, "image": 5}, "token_widths": {"text": 6, "image": 5}, "width": 8}
    with pytest.raises(ModelError, match="no fusion 'bottelneck'; did you mean 'bottleneck'"):
        build_fusion("bottelneck", **both)
    with pytest.raises(ModelError, match="no fusion 'None'"):
        fusion_from_spec({})
    with pytest.raises(ModelError, match="saved fusion 'late' cannot be read by this version"):
        fusion_from_spec({"kind": "late", "widths": {"text": 6, "image": 5}, "depth": 3})
    with pytest.raises(ModelError, match="fuse_at is 4 of 4 layers; it must be 0 to 3"):
        build_fusion("intermediate", **both, fuse_at=4)
    with pytest.raises(ModelError, match="fuse_at 3 of 4 layers leaves one layer with"):
        build_fusion("bottleneck", **both, fuse_at=3)
    with pytest.raises(ModelError, match="bottlenecks is 0; at least 1"):
        build_fusion("bottleneck", **both, bottlenecks=0)
    with pytest.raises(ModelError, match="join is 'mul'; it can be product or sum"):
        build_fusion("co_attention", **both, join="mul")
    with pytest.raises(ModelError, match="asks is 'audio', which is not among image, text"):
        build_fusion("gated_cross_attention", **both, asks="audio")
    for kind in ("shared_attention", "co_attention", "gated_cross_attention"):
        with pytest.raises(ModelError, match="width 8 is not a multiple of 3 heads"):
            build_fusion(kind, **both, heads=3)
