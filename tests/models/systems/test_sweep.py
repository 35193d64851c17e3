"""Every registered vision-language system goes through the same checks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.systems.cases import REGION_WIDTH, SMALL, close, everything, inputs, small
from torch import Tensor
from torch.nn import functional as F

from plait.core.batch import Encoded
from plait.core.errors import ModelError
from plait.models.systems.registry import SYSTEMS, build_system, system_from_spec

kinds = pytest.mark.parametrize("kind", SYSTEMS)
NAN = float("nan")


def padded(
    ids: Tensor, text: Tensor, regions: Encoded, words: int, more: int, value: float
) -> tuple[Tensor, Tensor, Encoded]:
    """The same with ``words`` and ``more`` regions of padding that hold nonsense."""
    assert regions.boxes is not None
    wider = Encoded(
        F.pad(regions.tokens, (0, 0, 0, more), value=value),
        F.pad(regions.mask, (0, more), value=False),
        regions.pooled,
        F.pad(regions.boxes, (0, 0, 0, more), value=value),
    )
    return F.pad(ids, (0, words), value=10**6), F.pad(text, (0, words), value=False), wider


@kinds
def test_shapes_and_declared_widths(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    fused = system(ids, text, regions)
    assert fused.pooled.shape == (3, system.width)
    assert fused.parts["text"].tokens.shape == (3, 6, system.text_width)
    assert fused.parts["image"].tokens.shape == (3, 4, system.image_width)
    assert system.answer_vector(fused).shape == (3, system.width)
    assert system.word_table.shape == (system.vocabulary, system.text_width)
    assert torch.equal(fused.parts["text"].mask, text)
    assert torch.equal(fused.parts["image"].mask, regions.mask)
    for part in fused.parts.values():
        assert part.tokens[~part.mask].eq(0).all()
    assert fused.pooled.isfinite().all()


@kinds
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    words=st.integers(0, 4),
    more=st.integers(0, 3),
    value=st.sampled_from([NAN, 1e30, 0.0]),
)
def test_padding_changes_nothing(kind: str, seed: int, words: int, more: int, value: float) -> None:
    system = small(kind)
    ids, text, regions = inputs(seed=seed)
    plain = system(ids, text, regions)
    wide = system(*padded(ids, text, regions, words, more, value))
    close(wide.pooled, plain.pooled)
    close(system.answer_vector(wide), system.answer_vector(plain))
    for name, length in (("text", 6), ("image", 4)):
        close(wide.parts[name].tokens[:, :length], plain.parts[name].tokens)


@kinds
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(4)))
def test_order_of_samples_changes_nothing(kind: str, seed: int, order: list[int]) -> None:
    system = small(kind)
    ids, text, regions = inputs(rows=4, seed=seed)
    assert regions.boxes is not None
    plain = system(ids, text, regions).pooled
    moved = Encoded(*(x[order] for x in (regions.tokens, regions.mask, regions.pooled)))
    moved = replace(moved, boxes=regions.boxes[order])
    close(system(ids[order], text[order], moved).pooled, plain[order])


@kinds
def test_company_changes_nothing(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    assert regions.boxes is not None
    together = system(ids, text, regions).pooled
    for row in range(3):
        one = slice(row, row + 1)
        alone = Encoded(regions.tokens[one], regions.mask[one], regions.pooled[one])
        alone = replace(alone, boxes=regions.boxes[one])
        close(system(ids[one], text[one], alone).pooled, together[one])


@kinds
def test_masked_content_changes_nothing_nan_included(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    assert regions.boxes is not None
    hidden = torch.zeros_like(regions.mask)
    hidden[:, 1] = True
    results = []
    for value in (0.0, NAN):
        system.zero_grad()
        absent = ~regions.mask[..., None]
        tokens = regions.tokens.masked_fill(absent | hidden[..., None], value)
        tokens.requires_grad_()
        changed = Encoded(
            tokens, regions.mask, regions.pooled, regions.boxes.masked_fill(absent, value)
        )
        out = everything(
            system, system(ids.masked_fill(~text, 7), text, changed, masked_regions=hidden)
        )
        out.sum().backward()
        gradients = [p.grad.flatten() for p in system.parameters() if p.grad is not None]
        results.append(torch.cat([out, tokens.grad.flatten(), *gradients]))  # type: ignore[union-attr]
    assert results[0].isfinite().all()
    assert torch.equal(*results)


@kinds
def test_a_picture_that_is_missing_is_as_no_regions(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs(rows=1)
    assert not regions.mask.any()
    none = Encoded(regions.tokens[:, :0], regions.mask[:, :0], regions.pooled)
    masked, without = system(ids, text, regions), system(ids, text, none)
    assert masked.pooled.isfinite().all()
    close(masked.pooled, without.pooled)
    close(masked.parts["text"].tokens, without.parts["text"].tokens)


@kinds
def test_a_text_that_is_missing_gives_numbers(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    text = text.clone()
    text[0] = False
    text[-1] = False  # has no picture either
    ids = ids.clone()
    fused = system(ids, text, regions)
    assert everything(system, fused).isfinite().all()
    ids[0] = 1
    close(everything(system, system(ids, text, regions)), everything(system, fused))


@kinds
def test_each_part_sees_the_other(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    before = system(ids, text, regions)
    other_words = ids.clone()
    other_words[:, 1] = (ids[:, 1] + 1) % 20
    after = system(other_words, text, regions)
    shown = regions.mask[:, 0]
    moved = (after.parts["image"].tokens - before.parts["image"].tokens)[shown, 0].abs().amax(1)
    assert (moved > 1e-6).all()
    changed = replace(regions, tokens=regions.tokens + 1)
    moved = (system(ids, text, changed).parts["text"].tokens - before.parts["text"].tokens).abs()
    assert (moved[shown, 0].amax(1) > 1e-6).all()
    assert moved[-1].max() == 0  # the row without a picture


@kinds
def test_hiding_a_region_changes_it_and_needs_no_features(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    hidden = torch.zeros_like(regions.mask)
    hidden[0, 0] = True
    plain, masked = (
        system(ids, text, regions, masked_regions=m).parts["image"].tokens for m in (None, hidden)
    )
    assert (plain - masked)[0, 0].abs().max() > 1e-6
    close(masked[1:], plain[1:])


@kinds
def test_boxes_left_out_are_the_whole_picture(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64).expand(3, 4, 4)
    close(
        system(ids, text, replace(regions, boxes=None)).pooled,
        system(ids, text, replace(regions, boxes=whole)).pooled,
    )


@kinds
def test_every_weight_gets_a_gradient(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    hidden = torch.zeros_like(regions.mask)
    hidden[:, 0] = True
    everything(system, system(ids, text, regions, masked_regions=hidden)).square().sum().backward()
    for name, parameter in system.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # LXMERT as published never trains the embedding of the one type that it uses
        assert parameter.grad.abs().max() > 0 or (kind, name) == ("lxmert", "words.types.weight")


@kinds
def test_dropout_only_in_training(kind: str) -> None:
    system = small(kind, dropout=0.5)
    ids, text, regions = inputs()
    assert torch.equal(system(ids, text, regions).pooled, system(ids, text, regions).pooled)
    system.train()
    assert not torch.equal(system(ids, text, regions).pooled, system(ids, text, regions).pooled)


@kinds
def test_spec_rebuilds_it(kind: str) -> None:
    system = small(kind)
    again = system_from_spec(json.loads(json.dumps(system.spec())))
    assert type(again) is type(system) and again.spec() == system.spec()
    again.double().eval().load_state_dict(system.state_dict())
    given_ = inputs()
    assert torch.equal(again(*given_).pooled, system(*given_).pooled)


@kinds
def test_wrong_width_and_long_texts_are_refused(kind: str) -> None:
    system = small(kind)
    ids, text, regions = inputs()
    wide = replace(regions, tokens=F.pad(regions.tokens, (0, 2)))
    with pytest.raises(
        ModelError, match=rf"{kind} was built for regions of {REGION_WIDTH} .* got 7"
    ):
        system(ids, text, wide)
    long = ids.repeat(1, 3)
    with pytest.raises(ModelError, match="positions for 12 words and got 18"):
        system(long, torch.ones_like(long, dtype=torch.bool), regions)


@kinds
def test_heads_must_divide_the_width(kind: str) -> None:
    with pytest.raises(ModelError, match="not a multiple of 5 heads"):
        build_system(kind, vocabulary=9, region_width=4, **(SMALL[kind] | {"heads": 5}))


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean 'vilbert'"):
        build_system("vilbrt", vocabulary=9, region_width=4)
    with pytest.raises(ModelError, match="no option 'layer'; did you mean 'layers'"):
        build_system("uniter", vocabulary=9, region_width=4, layer=2)
    with pytest.raises(ModelError, match="lacks 'vocabulary'"):
        system_from_spec({"kind": "uniter", "region_width": 4})
