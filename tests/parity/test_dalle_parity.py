"""DALL-E's parts against OpenAI's `dall_e` and against `dalle_pytorch`, in float64.

Some of the random configurations each; `python benchmarks/parity.py drawing` runs all. Both are
installed by `make`, without their dependencies.
"""

from __future__ import annotations

import pytest
import torch
from benchmarks import _drawing_oracles as oracles

from plait.models.drawing import attention, codebook, transformer

for _name in ("attr", "einops", "axial_positional_embedding", "rotary_embedding_torch"):
    pytest.importorskip(
        _name, reason="compares with DALL-E: pip install --no-deps -r requirements-oracles.txt"
    )

LIMIT = 1e-9
CASES = [("openai", 0), *(("strided", i) for i in range(6)), *(("dalle", i) for i in range(8))]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_values_losses_and_gradients(name: str, seed: int) -> None:
    found = oracles.CASES[name](seed)
    assert max(found.values()) <= LIMIT, found


def test_every_attention_kind_of_the_reference_is_compared() -> None:
    seen = {key.split(" ")[0] for _, seed in CASES[7:] for key in oracles.CASES["dalle"](seed)}
    assert set(oracles.KINDS) <= seen
    assert {"text", "code", "loss", "gradients"} <= seen


def test_the_comparison_sees_a_wrong_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolution-like attention around the cell, where the reference looks up and left."""
    real = attention.grid_mask
    monkeypatch.setattr(
        attention,
        "grid_mask",
        lambda kind, *sizes: real("conv" if kind == "corner" else kind, *sizes),
    )
    seed = next(i for i in range(20) if has_wide_corner(i))
    assert max(oracles.CASES["dalle"](seed).values()) > 1e-4


def has_wide_corner(seed: int) -> bool:
    _, ours, sizes = oracles.dalle_pair(seed)
    return sizes["side"] == 4 and any(b.attention.kind == "corner" for b in ours.blocks)


def test_the_comparison_sees_another_weight_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    real = transformer.DrawingTransformer.loss
    monkeypatch.setattr(
        transformer.DrawingTransformer,
        "loss",
        lambda self, text, codes: real(self, text, codes, 6.0),
    )
    assert oracles.CASES["dalle"](0)["loss"] > 1e-4


def test_the_comparison_sees_a_divergence_that_is_not_of_the_uniform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = codebook.divergence_from_uniform
    monkeypatch.setattr(
        "plait.models.drawing.dvae.divergence_from_uniform", lambda logits: 1.01 * real(logits)
    )
    assert oracles.CASES["strided"](0)["loss"] > 1e-6


def test_the_divergence_of_the_reference_grows_with_the_batch() -> None:
    """A known divergence: it sums over pictures, plait takes their mean."""
    vae = oracles.load("dalle_pytorch").DiscreteVAE(
        image_size=8, num_tokens=8, codebook_dim=4, num_layers=1, hidden_dim=4
    )
    pixels = torch.rand(4, 3, 8, 8)
    logits = vae(pixels, return_logits=True)
    assert divergence_of(vae, pixels) == pytest.approx(
        4 * float(codebook.divergence_from_uniform(logits).detach()), rel=1e-3
    )


def divergence_of(vae, pixels: torch.Tensor) -> float:  # type: ignore[no-untyped-def]
    losses = []
    for weight in (1.0, 0.0):
        vae.kl_div_loss_weight = weight
        torch.manual_seed(0)
        losses.append(float(vae(pixels, return_loss=True).detach()))
    return losses[0] - losses[1]


@pytest.mark.parametrize("cached", [False, True])
def test_guidance_of_the_reference_acts_on_the_first_cell_alone(
    cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known divergence. Without a cache its empty text overwrites the caller's; with one, both
    passes read the same keys. In plait both passes differ at every cell."""
    torch.manual_seed(0)
    theirs, _, sizes = oracles.dalle_pair(3)
    ids, _ = oracles.dalle_inputs(sizes, 3)
    seen = []
    real = type(theirs).forward

    def recorded(self, *given, **options):  # type: ignore[no-untyped-def]
        out = real(self, *given, **options)
        seen.append(out[:, -1, -sizes["codes"] :].clone())
        return out

    monkeypatch.setattr(type(theirs), "forward", recorded)
    theirs.generate_images(ids.clamp(min=1), cond_scale=3.0, use_cache=cached)
    apart = [float((a - b).abs().max()) for a, b in zip(seen[::2], seen[1::2])]
    assert apart[0] > 1e-3
    assert max(apart[1:]) < 1e-12
