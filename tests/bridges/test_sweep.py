"""Every registered bridge goes through the same checks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from tests.bridges.made import (
    KINDS,
    TOKEN_WIDTH,
    TOKENS,
    WIDTH,
    bridge,
    encoded,
    rows_of,
    spoilt,
    weighed,
)

from plait.bridges.registry import bridge_from_spec, build_bridge
from plait.core.errors import ModelError

torch.set_num_threads(1)

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_shapes_counts_and_zeros_at_masked_positions(kind: str) -> None:
    built, given = bridge(kind), encoded()
    tokens, mask = built(given)
    assert tokens.shape == (4, built.count(TOKENS), WIDTH) and mask.shape == tokens.shape[:2]
    assert built.width == WIDTH and built.token_width == TOKEN_WIDTH and built.kind == kind
    assert mask[0].all() and mask[3].all() and not mask[1].any()
    assert not tokens[~mask].any() and tokens[mask].abs().amin(dim=0).min() > 0
    single = replace(given, tokens=given.tokens.float(), pooled=given.pooled.float())
    close, _ = built.float()(single)
    torch.testing.assert_close(close.double(), tokens, rtol=1e-3, atol=1e-4)


@every_kind
def test_every_parameter_and_the_picture_get_a_gradient(kind: str) -> None:
    built, given = bridge(kind), encoded()
    given = replace(given, tokens=given.tokens.requires_grad_())
    weighed(built(given)[0]).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    assert given.tokens.grad is not None
    assert given.tokens.grad[given.mask].abs().sum(dim=-1).min() > 0
    assert not given.tokens.grad[~given.mask].any()


@every_kind
@pytest.mark.parametrize("value", [7.0, math.nan, math.inf])
def test_what_masked_tokens_hold_changes_nothing(kind: str, value: float) -> None:
    outcomes = []
    for filled in (0.0, value):
        built = bridge(kind)
        tokens, mask = built(spoilt(encoded(), filled))
        weighed(tokens).backward()
        outcomes.append((tokens, mask, [parameter.grad for parameter in built.parameters()]))
    (plain, plain_mask, plain_grads), (other, other_mask, other_grads) = outcomes
    assert torch.equal(plain_mask, other_mask) and torch.equal(plain, other)
    assert all(torch.equal(one, two) for one, two in zip(plain_grads, other_grads, strict=True))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pixel_shuffle"])
def test_longer_padding_changes_nothing(kind: str) -> None:
    built, given = bridge(kind), replace(encoded(), boxes=None)
    plain, plain_mask = built(given)
    longer = replace(
        given,
        tokens=torch.nn.functional.pad(given.tokens, (0, 0, 0, 4), value=3.0),
        mask=torch.nn.functional.pad(given.mask, (0, 4)),
    )
    tokens, mask = built(longer)
    kept = plain.shape[1]
    torch.testing.assert_close(tokens[:, :kept], plain, rtol=0, atol=1e-12)
    assert torch.equal(mask[:, :kept], plain_mask) and not mask[:, kept:].any()


@every_kind
def test_order_and_company_of_samples_change_nothing(kind: str) -> None:
    built, given = bridge(kind), encoded()
    plain, plain_mask = built(given)
    order = torch.tensor([2, 0, 3, 1])
    tokens, mask = built(rows_of(given, order))
    torch.testing.assert_close(tokens, plain[order], rtol=0, atol=1e-12)
    assert torch.equal(mask, plain_mask[order])
    for row in range(4):
        alone, mask = built(rows_of(given, slice(row, row + 1)))
        torch.testing.assert_close(alone[0], plain[row], rtol=0, atol=1e-12)
        assert torch.equal(mask[0], plain_mask[row])


@every_kind
def test_pictures_count(kind: str) -> None:
    built = bridge(kind)
    one, mask = built(encoded(seed=1))
    two, _ = built(encoded(seed=2))
    assert (one - two).abs().amax(dim=-1)[mask].min() > 1e-6


@every_kind
def test_spec_round_trip(kind: str) -> None:
    built = bridge(kind)
    spec = json.loads(json.dumps(built.spec()))
    assert spec["kind"] == kind
    again = bridge_from_spec(spec).double().eval()
    assert again.spec() == built.spec() and again.width == built.width
    again.load_state_dict(built.state_dict())
    assert torch.equal(again(encoded())[0], built(encoded())[0])


@every_kind
def test_messages(kind: str) -> None:
    with pytest.raises(ModelError, match=f"bridge '{kind}' has no option 'layesr'"):
        build_bridge(kind, TOKEN_WIDTH, WIDTH, layesr=2)
    other = encoded()
    other = replace(other, tokens=other.tokens[..., :5])
    message = f"bridge '{kind}' was built for tokens of 6 features and got 5: build it with token_w"
    with pytest.raises(ModelError, match=message):
        bridge(kind)(other)


def test_unknown_kinds_and_specs() -> None:
    with pytest.raises(ModelError, match="no bridge 'q-former'; did you mean 'qformer'"):
        build_bridge("q-former", 4, 4)
    with pytest.raises(ModelError, match="no bridge 'None'"):
        bridge_from_spec({})
    with pytest.raises(ModelError, match="saved bridge 'mlp' cannot be read by this version"):
        bridge_from_spec({"kind": "mlp", "token_width": 3, "width": 4, "depth": 2})
