"""The resampler and gated cross-attention: time, visibility, the shut gates."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bridges.made import TOKENS, bridge, encoded, weighed

from plait.bridges.gated import GatedCrossAttention, text_time, visible_media
from plait.bridges.resampler import ResamplerBridge
from plait.core.batch import Encoded
from plait.core.errors import ModelError

torch.set_num_threads(1)
IMAGE = 9


def block(open_gates: bool = True, seed: int = 0) -> GatedCrossAttention:
    torch.manual_seed(seed)
    built = GatedCrossAttention(6, 5, heads=2, head_width=4, hidden=7).double()
    if open_gates:
        with torch.no_grad():
            built.gate.fill_(0.7)
            built.gate_feed_forward.fill_(-0.4)
    return built


def inputs(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two texts of 7 words, three pictures of 4 tokens; text 1 has only two pictures."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 7, 6, generator=generator, dtype=torch.float64)
    media = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[1, 2] = False
    mask[0, 0, 2:] = False
    ids = torch.tensor([[1, IMAGE, 2, IMAGE, 3, IMAGE, 4], [IMAGE, 1, 2, IMAGE, 3, 4, 5]])
    return x, media, mask, text_time(ids, IMAGE)


# --- gated cross-attention ---


def test_text_time_counts_pictures() -> None:
    ids = torch.tensor([[1, 9, 9, 2, 9], [1, 2, 3, 4, 5]])
    assert text_time(ids, 9).tolist() == [[0, 1, 2, 2, 3], [0, 0, 0, 0, 0]]


def test_who_sees_what_by_hand() -> None:
    time = torch.tensor([[0, 1, 2, 3]])
    mask = torch.tensor([[[True, True], [True, False]]])  # two pictures, the second of one token
    latest = [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    every = [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert visible_media(time, mask).int().tolist() == [latest]
    assert visible_media(time, mask, only_latest=False).int().tolist() == [every]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("only_latest", [True, False])
def test_shut_gates_change_no_bit(dtype: torch.dtype, only_latest: bool) -> None:
    x, media, mask, time = inputs()
    built = block(open_gates=False).to(dtype)
    media = media.masked_fill(~mask[..., None], math.nan)
    x, media = x.to(dtype), media.to(dtype)
    assert torch.equal(built(x, media, mask, time, only_latest), x)


def test_shut_gates_have_a_gradient_and_nothing_behind_them_does() -> None:
    built = block(open_gates=False)
    weighed(built(*inputs())).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == name.startswith("gate"), name


@pytest.mark.parametrize("only_latest", [True, False])
def test_words_see_no_other_picture(only_latest: bool) -> None:
    """Which words change when one picture does."""
    built = block()
    x, media, mask, time = inputs()
    plain = built(x, media, mask, time, only_latest)
    for number in range(3):
        other = media.clone()
        other[:, number] += 1.0
        changed = (built(x, other, mask, time, only_latest) - plain).abs().amax(dim=-1) > 1e-9
        sees = time == number + 1 if only_latest else time >= number + 1
        assert torch.equal(changed, sees & mask[:, number].any(dim=-1)[:, None])


@pytest.mark.parametrize("only_latest", [True, False])
def test_before_the_first_picture_only_the_feed_forward_acts(only_latest: bool) -> None:
    built = block()
    x, media, mask, time = inputs()
    out = built(x, media, mask, time, only_latest)
    expected = x + built.gate_feed_forward.tanh() * built.feed_forward(x)
    torch.testing.assert_close(out[0, 0], expected[0, 0], rtol=0, atol=1e-12)
    # text 1 with nothing but padding for its second picture, and text without any picture
    mask[1, 1] = False
    out = built(x, media, mask, time, only_latest=True)
    torch.testing.assert_close(out[1, 3:], expected[1, 3:], rtol=0, atol=1e-12)
    nothing = built(x, media[:, :0], mask[:, :0], torch.zeros_like(time))
    torch.testing.assert_close(nothing, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [5.0, math.nan, math.inf])
def test_masked_media_change_nothing_in_values_and_gradients(value: float) -> None:
    outcomes = []
    for filled in (0.0, value):
        x, media, mask, time = inputs()
        built = block()
        out = built(x, media.masked_fill(~mask[..., None], filled), mask, time)
        weighed(out).backward()
        outcomes.append([out, *(p.grad for p in built.parameters())])
    assert all(torch.equal(one, two) for one, two in zip(*outcomes, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_a_text_cut_short_is_read_alike(seed: int, only_latest: bool) -> None:
    """What comes later in the text, pictures included, never changes what was before."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(7, 10, (1, 6), generator=generator)
    x, media, mask, _ = inputs(seed)
    x, media, mask = x[:1, :6], torch.cat([media[:1], media[1:]], dim=1), torch.ones(1, 6, 4) > 0
    built = block(seed=seed)
    whole = built(x, media, mask, text_time(ids, IMAGE), only_latest)
    cut = int(torch.randint(1, 7, (), generator=generator))
    time = text_time(ids[:, :cut], IMAGE)
    pictures = int(time.max())
    part = built(x[:, :cut], media[:, :pictures], mask[:, :pictures], time, only_latest)
    torch.testing.assert_close(part, whole[:, :cut], rtol=0, atol=1e-12)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ModelError, match="gated cross-attention: widths and heads must be at le"):
        GatedCrossAttention(6, 5, heads=0)
    assert GatedCrossAttention(**block().spec()).spec() == block().spec()


# --- perceiver resampler ---


def test_frames_are_told_apart_by_their_time_alone() -> None:
    built = bridge("resampler")
    given = encoded(rows=1)
    two, _ = built(given, frames=2)
    halves = given.tokens.unflatten(1, (2, -1))
    swapped = Encoded(halves.flip(1).flatten(1, 2), given.mask, given.pooled)
    assert (built(swapped, frames=2)[0] - two).abs().max() > 1e-3
    shuffled = Encoded(halves.flip(2).flatten(1, 2), given.mask, given.pooled)
    torch.testing.assert_close(built(shuffled, frames=2)[0], two, rtol=0, atol=1e-12)
    with torch.no_grad():
        built.times.copy_(built.times[:1].expand_as(built.times))
    torch.testing.assert_close(
        built(swapped, frames=2)[0], built(given, frames=2)[0], rtol=0, atol=1e-12
    )


def test_a_picture_is_a_video_of_one_frame_and_padding_frames_change_nothing() -> None:
    built = bridge("resampler")
    given = encoded(rows=1)
    one, _ = built(given)
    padded = Encoded(
        torch.cat([given.tokens, torch.full_like(given.tokens, 4.0)], dim=1),
        torch.cat([given.mask, ~given.mask], dim=1),
        given.pooled,
    )
    torch.testing.assert_close(built(padded, frames=2)[0], one, rtol=0, atol=1e-12)
    # the embedding of the first time is added
    moved = Encoded(given.tokens + built.times[0], given.mask, given.pooled)
    with torch.no_grad():
        built.times.zero_()
    torch.testing.assert_close(built(moved)[0], one, rtol=0, atol=1e-12)


def test_more_frames_than_in_training_interpolate_time() -> None:
    """Two learned times and three frames: the middle one is their mean."""
    built = bridge("resampler", frames=2)
    added = built._times(6, 3)
    first, last = built.times
    expected = torch.stack([first, first, (first + last) / 2, (first + last) / 2, last, last])
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-12)


def test_a_projection_only_where_widths_differ() -> None:
    same = ResamplerBridge(6, 6, latents=2, layers=1, heads=1, head_width=2)
    assert isinstance(same.project, torch.nn.Identity)
    assert sum(p.numel() for p in same.latents[None]) == 12 and same.count(1000) == 2


def test_published_sizes() -> None:
    built = ResamplerBridge(16, 16)
    assert built.latents.shape == (64, 16) and len(built.layers) == 6 and built.times is None
    assert built.layers[0].query.weight.shape == (512, 16)
    assert all(
        "bias" not in name or "norm" in name or ".0." in name
        for name, _ in built.named_parameters()
    )


def test_messages() -> None:
    with pytest.raises(ModelError, match=f"got {TOKENS} tokens of 5 frames: each frame must"):
        bridge("resampler")(encoded(), frames=5)
    pictures = bridge("resampler", frames=0)
    with pytest.raises(ModelError, match="for pictures and got 2 frames: build it with frames=2"):
        pictures(encoded(), frames=2)
    with pytest.raises(ModelError, match="latents, layers and heads must be at least 1"):
        bridge("resampler", latents=0)
