"""The discrete VAE: relaxed codes, divergence, likelihoods, shapes, messages."""

from __future__ import annotations

import math

import pytest
import torch

from plait.core.errors import ModelError
from plait.models.drawing.codebook import (
    annealed,
    code_use,
    divergence_from_uniform,
    gumbel_softmax,
    imbalance,
)
from plait.models.drawing.dvae import DiscreteVAE
from plait.models.drawing.likelihoods import LIKELIHOODS, to_bytes
from plait.models.drawing.nets import NETS


def pixels(rows: int = 2, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (rows, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("error", LIKELIHOODS)
@pytest.mark.parametrize("net", NETS)
def test_every_net_and_error_trains_all_weights(net: str, error: str) -> None:
    model = DiscreteVAE(16, 12, 2, 8, 1, 6, net, error)
    out = model(pixels(), temperature=0.7, kl_weight=1e-3)
    out.loss.backward()
    assert model.grid == (4, 4)
    assert out.logits.shape == (2, 12, 4, 4)
    torch.testing.assert_close(out.loss, out.error + 1e-3 * out.divergence)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    codes = model.codes(pixels())
    assert codes.shape == (2, 4, 4)
    picture = model.decode(codes)
    assert picture.shape == (2, 3, 16, 16) and picture.dtype == torch.uint8


def test_relaxed_choice_follows_the_logits() -> None:
    """At a low temperature the share of samples is the softmax: 0.5, 0.3, 0.2."""
    p = torch.tensor([0.5, 0.3, 0.2])
    logits = p.log().view(1, 3, 1, 1).expand(1, 3, 100, 100)
    generator = torch.Generator().manual_seed(0)
    drawn = gumbel_softmax(logits, 1e-4, generator=generator).mean(dim=(0, 2, 3))
    torch.testing.assert_close(drawn, p, atol=0.02, rtol=0)


def test_hard_choice_is_one_hot_with_the_gradients_of_the_soft_one() -> None:
    logits = torch.randn(2, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    gradients = []
    for hard in (False, True):
        generator = torch.Generator().manual_seed(1)
        choice = gumbel_softmax(logits, 0.8, hard, generator)
        torch.testing.assert_close(choice.sum(1), torch.ones(2, 3, 3).double())
        gradients.append(torch.autograd.grad((choice * weights).sum(), logits)[0])
    assert set(choice.detach().round(decimals=9).abs().flatten().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(*gradients)


def test_divergence_by_hand_and_per_picture() -> None:
    """One certain cell of four codes costs ln 4, an undecided one nothing; the mean is over
    pictures."""
    logits = torch.zeros(3, 4, 1, 2, dtype=torch.float64)
    logits[0, 2, 0, 0] = 1000.0
    logits[1, 0] = 1000.0
    expected = torch.tensor((1 + 2 + 0) * math.log(4) / 3).double()
    torch.testing.assert_close(divergence_from_uniform(logits), expected)
    twice = divergence_from_uniform(torch.cat([logits, logits]))
    torch.testing.assert_close(twice, expected)


def test_imbalance_by_hand() -> None:
    """Sure cells of two codes of four, equally often: ln 4 - ln 2. All alike: ln 4. Unsure: 0."""
    logits = torch.zeros(2, 4, 1, 1, dtype=torch.float64)
    assert float(imbalance(logits)) == pytest.approx(0.0, abs=1e-12)
    logits[0, 1], logits[1, 3] = 1000.0, 1000.0
    assert float(imbalance(logits)) == pytest.approx(math.log(2))
    assert float(imbalance(logits[:1])) == pytest.approx(math.log(4))


def test_weights_of_the_terms() -> None:
    model = DiscreteVAE(16, 12, 2, 8, 1, 6)
    out = model(pixels(), 0.7, kl_weight=1e-3, balance_weight=0.2)
    terms = out.error + 1e-3 * out.divergence + 0.2 * out.imbalance
    torch.testing.assert_close(out.loss, terms)


def test_logit_laplace_integrates_to_one_and_costs_least_at_the_median() -> None:
    x = torch.linspace(1e-5, 1 - 1e-5, 200001, dtype=torch.float64)
    logit_laplace = LIKELIHOODS["logit_laplace"]
    output = torch.tensor([0.4, math.log(0.7)]).double().view(1, 2, 1, 1)
    output = output.repeat_interleave(3, dim=1)
    density = torch.stack(
        [
            torch.exp(-logit_laplace.loss(output, v.view(1, 1, 1, 1).expand(1, 3, 1, 1)))
            for v in x[::200]
        ]
    )
    assert float(torch.trapezoid(density, x[::200])) == pytest.approx(1.0, abs=2e-3)
    assert float(logit_laplace.pixels(output)[0, 0]) == pytest.approx(
        (1 / (1 + math.exp(-0.4)) - 0.1) / 0.8
    )


@pytest.mark.parametrize("error", ["mse", "smooth_l1"])
def test_differences_by_hand(error: str) -> None:
    """127.5 against 255 differs by 1 on the scale -1..1."""
    kind = LIKELIHOODS[error]
    target = kind.prepare(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    assert float(kind.loss(torch.zeros(1, 3, 2, 2), target)) == (1.0 if error == "mse" else 0.5)
    assert to_bytes(kind.pixels(target)).eq(255).all()


def test_bytes_survive_the_way_there_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    for name in ("mse", "smooth_l1"):
        assert to_bytes(LIKELIHOODS[name].pixels(LIKELIHOODS[name].prepare(every))).equal(every)
    laplace = LIKELIHOODS["logit_laplace"]
    mean = torch.logit(laplace.prepare(every))
    assert to_bytes(laplace.pixels(torch.cat([mean, mean], dim=1))).equal(every)


def test_temperature_goes_down_half_a_cosine() -> None:
    assert annealed(0, 100) == 1.0
    assert annealed(50, 100) == pytest.approx((1 + 1 / 16) / 2)
    assert annealed(100, 100) == annealed(1000, 100) == 1 / 16
    assert annealed(3, 0, 1.0, 0.5) == 0.5


def test_code_use_by_hand() -> None:
    """Two codes of eight, equally often: a quarter, perplexity 2."""
    use = code_use(torch.tensor([[3, 5], [5, 3]]), 8)
    assert use.share == 0.25
    assert use.perplexity == pytest.approx(2.0)
    assert code_use(torch.arange(8), 8).perplexity == pytest.approx(8.0)
    with pytest.raises(ValueError, match=r"0 \.\. 7"):
        code_use(torch.tensor([8]), 8)
    with pytest.raises(ValueError, match="no codes"):
        code_use(torch.tensor([], dtype=torch.int64), 8)


def test_a_code_learns_its_colour() -> None:
    """Pictures of two colours: the error goes below a tenth of its start, each has its code."""
    torch.manual_seed(0)
    model = DiscreteVAE(8, 4, 2, 8, 1, 8)
    shown = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
    shown[::2, 0], shown[1::2, 2] = 255, 255
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    errors = []
    for step in range(150):
        out = model(shown, annealed(step, 150))
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        errors.append(float(out.error.detach()))
    assert errors[-1] < errors[0] / 10
    codes = model.codes(shown)
    assert codes[0].equal(codes[2]) and not codes[0].equal(codes[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 20, "layers": 3}, "multiple of 8"),
        ({"layers": 0}, "halved 0 times"),
        ({"net": "strode"}, "did you mean 'strided'"),
        ({"error": "mae"}, "errors: mse, smooth_l1"),
        ({"net": "paper", "width": 6}, "multiple of 4"),
        ({"codes": 1}, "at least 2"),
    ],
)
def test_impossible_sizes_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        DiscreteVAE(**options)  # type: ignore[arg-type]


def test_pictures_of_another_size_and_no_temperature_are_refused() -> None:
    model = DiscreteVAE(16, 8, 2, 8, 0, 8)
    with pytest.raises(ModelError, match=r"\(3, 16, 16\), not \(3, 8, 8\)"):
        model.codes(pixels(size=8))
    with pytest.raises(ModelError, match="above 0"):
        model(pixels(), 0.0)
