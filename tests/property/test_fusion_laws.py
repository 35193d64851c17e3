"""Laws of every fusion, for any batch, any lengths and any pattern of absent modalities."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fusion.made import (
    POOLED,
    THREE,
    TOKENS,
    assert_same,
    fusion,
    numbers,
    padded,
    rows_of,
    spoilt,
)
from torch import Tensor

from plait.core.batch import Encoded, Fused
from plait.fusion.base import Fusion
from plait.fusion.inputs import in_order, share
from plait.fusion.registry import FUSIONS

torch.set_num_threads(1)

FEW = settings(max_examples=12, deadline=None)
every_kind = pytest.mark.parametrize("kind", FUSIONS)
seeds = st.integers(0, 2**20)
spoils = st.sampled_from([0.0, 1e6, float("nan"), float("-inf")])


@cache
def _built(kind: str) -> Fusion:
    return fusion(kind, THREE, **({"heads": 2} if kind == "gated_cross_attention" else {})).eval()


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, Encoded], dict[str, Tensor]]:
    """Encoded modalities, and which rows have them: at least one in each row."""
    rows = draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(seeds))
    there = draw(
        st.lists(
            st.sets(st.sampled_from(THREE), min_size=1).map(tuple), min_size=rows, max_size=rows
        )
    )
    made, present = {}, {}
    for name in THREE:
        length = draw(st.integers(1, 6))
        lengths = draw(st.lists(st.integers(1, length), min_size=rows, max_size=rows))
        mask = torch.arange(length) < torch.tensor(lengths)[:, None]
        boxes = torch.rand(rows, length, 4, generator=generator).double()
        made[name] = Encoded(
            torch.randn(rows, length, TOKENS[name], generator=generator).double(),
            mask,
            torch.randn(rows, POOLED[name], generator=generator).double(),
            boxes if name == "image" and draw(st.booleans()) else None,
        )
        present[name] = torch.tensor([name in one for one in there])
    return made, present


@every_kind
@FEW
@given(batches(), st.integers(1, 4), spoils)
def test_padding_never_changes_an_output(kind, batch, extra, value) -> None:
    made, present = batch
    with torch.no_grad():
        plain, longer = (_built(kind)(x, present) for x in (made, padded(made, extra, value)))
    torch.testing.assert_close(longer.pooled, plain.pooled, rtol=0, atol=1e-11)
    for name, part in longer.parts.items():
        length = made[name].mask.shape[1]
        torch.testing.assert_close(
            part.tokens[:, :length], plain.parts[name].tokens, rtol=0, atol=1e-11
        )
        assert not part.mask[:, length:].any() and not part.tokens[:, length:].any()


@every_kind
@FEW
@given(batches(), spoils)
def test_what_an_absent_modality_holds_never_matters(kind, batch, value) -> None:
    made, present = batch
    with torch.no_grad():
        one, other = (_built(kind)(spoilt(made, present, x), present) for x in (0.5, value))
    assert all(torch.isfinite(tensor).all() for tensor in numbers(other))
    assert_same(one, other)


@every_kind
@FEW
@given(batches(), seeds)
def test_the_order_and_the_company_of_samples_never_matter(kind, batch, seed) -> None:
    made, present = batch
    rows = len(present["text"])
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    cut = seed % (rows + 1)
    with torch.no_grad():
        plain = _built(kind)(made, present)
        for chosen in (order, order[:cut], order[cut:]):
            if len(chosen):
                found = _built(kind)(
                    rows_of(made, chosen), {name: p[chosen] for name, p in present.items()}
                )
                assert_same(found, Fused(plain.pooled[chosen], rows_of(plain.parts, chosen)), 1e-11)


@every_kind
@FEW
@given(batches(), seeds)
def test_the_order_of_tokens_only_orders_the_tokens(kind, batch, seed) -> None:
    """Places come with the tokens (from the encoder, or as boxes), never from where they stand."""
    made, present = batch
    generator = torch.Generator().manual_seed(seed)
    orders = {
        name: torch.randperm(part.mask.shape[1], generator=generator) for name, part in made.items()
    }

    def moved(parts: dict[str, Encoded]) -> dict[str, Encoded]:
        return {
            name: Encoded(
                part.tokens[:, orders[name]],
                part.mask[:, orders[name]],
                part.pooled,
                None if part.boxes is None else part.boxes[:, orders[name]],
            )
            for name, part in parts.items()
        }

    with torch.no_grad():
        plain, other = (_built(kind)(x, present) for x in (made, moved(made)))
    assert_same(other, Fused(plain.pooled, moved(dict(plain.parts))), 1e-11)


@FEW
@given(batches())
def test_gated_features_are_averages_of_numbers_between_minus_one_and_one(batch) -> None:
    with torch.no_grad():
        assert _built("gated")(*batch).pooled.abs().max() <= 1


@FEW
@given(batches())
def test_late_fusion_lies_between_the_decisions_of_those_present(batch) -> None:
    made, present = batch
    with torch.no_grad():
        fused = _built("late")(made, present).pooled
        alone = []
        for name in THREE:
            only_it = {other: torch.full_like(p, other == name) for other, p in present.items()}
            decision = _built("late")(made, only_it).pooled
            alone.append(torch.where(present[name][:, None], decision, torch.nan))
    decisions = torch.stack(alone)
    least = decisions.nan_to_num(torch.inf).amin(0)
    most = decisions.nan_to_num(-torch.inf).amax(0)
    assert (fused >= least - 1e-12).all() and (fused <= most + 1e-12).all()


@FEW
@given(st.integers(1, 4), st.integers(1, 5), st.sampled_from([0, 3]), seeds)
def test_shares_are_a_softmax_over_those_present(rows, count, features, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, count, features) if features else (rows, count)
    scores = 30 * torch.randn(*shape, generator=generator).double()
    there = torch.rand(rows, count, generator=generator) < 0.5
    there[:, 0] = True
    found = share(scores, there)
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))
    assert not found[~there].any() and (found >= 0).all()
    torch.testing.assert_close(share(scores + 7, there), found)
    raised = scores.exp() * (there[..., None] if features else there)
    torch.testing.assert_close(found, raised / raised.sum(1, keepdim=True))


@given(st.permutations(THREE))
def test_modalities_have_one_order(names) -> None:
    assert in_order(names) == ("image", "text", "audio")
