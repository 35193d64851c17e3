"""The chunked loss of a language model's head against PyTorch's loss of all logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from plait.core.errors import UserError
from plait.objectives.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_plain


def leaves(tokens: int, words: int, width: int, *, seed: int = 0, bias: bool = True, std=1.0):
    """hidden, weight, bias (or None) in float64, all learning, and labels."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*size: int) -> Tensor:
        values = torch.randn(*size, dtype=torch.float64, generator=generator) * std
        return values.requires_grad_()

    labels = torch.randint(words, (tokens,), generator=generator)
    return drawn(tokens, width), drawn(words, width), drawn(words) if bias else None, labels


def reference(hidden, weight, bias, labels, **options) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight, bias), labels, **options)


def gradients(loss: Tensor, inputs) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [one for one in inputs if one is not None]))


def assert_near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 13),
    words=st.integers(1, 17),
    width=st.integers(1, 5),
    chunk=st.one_of(st.none(), st.integers(1, 15)),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    ignored=st.floats(0, 1),
    bias=st.booleans(),
    std=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**20),
)
def test_value_and_gradients_are_those_of_all_logits(
    tokens, words, width, chunk, smoothing, reduction, ignored, bias, std, seed
):
    hidden, weight, offset, labels = leaves(tokens, words, width, seed=seed, bias=bias, std=std)
    generator = torch.Generator().manual_seed(seed)
    labels[torch.rand(tokens, generator=generator) < ignored] = 3 if words > 3 else -100
    options = {
        "ignore_index": 3 if words > 3 else -100,
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    ours = linear_cross_entropy(hidden, weight, labels, offset, chunk=chunk, **options)
    theirs = reference(hidden, weight, offset, labels, **options)
    if (labels == options["ignore_index"]).all() and reduction == "mean":
        theirs = reference(hidden, weight, offset, labels, **options | {"reduction": "sum"})
    # a loss is a difference of logits: it is exact to the rounding of the largest of them
    size = 1 + float(F.linear(hidden, weight, offset).detach().abs().max())
    assert_near(ours / size, theirs / size)
    outer = torch.randn(ours.shape, dtype=torch.float64, generator=generator)
    inputs = hidden, weight, offset
    pairs = zip(gradients((ours * outer).sum(), inputs), gradients((theirs * outer).sum(), inputs))
    for one, other in pairs:
        assert_near(one / size, other / size)


def test_uniform_logits_by_hand():
    # all logits are 0: the loss is ln V, the gradient of the bias 1 / V, less 1 at the label
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    hidden = torch.zeros(2, 3, dtype=torch.float64)
    weight = torch.ones(4, 3, dtype=torch.float64)
    loss = linear_cross_entropy(hidden, weight, torch.tensor([1, 1]), bias)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4), abs=1e-15)
    assert bias.grad is not None
    assert bias.grad.tolist() == pytest.approx([0.25, -0.75, 0.25, 0.25], abs=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_finite_differences_agree(reduction):
    hidden, weight, bias, labels = leaves(5, 7, 3)
    labels[2] = -100

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        options = {"label_smoothing": 0.2, "reduction": reduction, "chunk": 2}
        return linear_cross_entropy(hidden, weight, labels, bias, **options)

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_label_at_all_is_a_loss_of_zero_with_zero_gradients(reduction):
    hidden, weight, bias, labels = leaves(4, 6, 3)
    loss = linear_cross_entropy(
        hidden, weight, torch.full_like(labels, -100), bias, reduction=reduction
    )
    loss.sum().backward()
    assert not loss.detach().any()
    for leaf in (hidden, weight, bias):
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_rows_without_a_label_may_hold_anything():
    hidden, weight, bias, labels = leaves(6, 9, 4)
    clean = linear_cross_entropy(hidden[:4], weight, labels[:4], bias)
    labels[4:] = -100
    spoilt = hidden.detach().clone()
    spoilt[4], spoilt[5] = math.nan, math.inf
    spoilt.requires_grad_()
    loss = linear_cross_entropy(spoilt, weight, labels, bias, chunk=3)
    assert_near(loss, clean)
    of_hidden, of_weight = gradients(loss, (spoilt, weight))
    assert not of_hidden[4:].any()
    assert torch.isfinite(of_weight).all()


class Watch(TorchDispatchMode):
    """Counts matrix products and notes the largest tensor that any operation gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket.__name__ in ("mm", "addmm", "addmm_")
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize(
    ("frozen", "products"),
    [((), 3), (("weight", "bias"), 2), (("hidden",), 2), (("hidden", "weight", "bias"), 1)],
)
def test_what_is_frozen_gets_no_gradient_and_costs_none(frozen, products):
    hidden, weight, bias, labels = leaves(6, 9, 4)
    given = {"hidden": hidden, "weight": weight, "bias": bias}
    for name in frozen:
        given[name].requires_grad_(False)
    learning = [one for name, one in given.items() if name not in frozen]
    with Watch() as watch:
        loss = linear_cross_entropy(hidden, weight, labels, bias)
        ours = gradients(loss, learning) if learning else []
    assert watch.products == products
    theirs = gradients(reference(hidden, weight, bias, labels), learning) if learning else []
    for one, other in zip(ours, theirs, strict=True):
        assert_near(one, other)


def test_without_gradients_only_the_value_is_computed():
    hidden, weight, bias, labels = leaves(6, 9, 4)
    with torch.no_grad(), Watch() as watch:
        loss = linear_cross_entropy(hidden, weight, labels, bias)
    assert watch.products == 1
    assert_near(loss, reference(hidden, weight, bias, labels).detach())


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_logits_of_all_rows_never_exist(reduction):
    hidden, weight, bias, labels = leaves(96, 200, 4)
    with Watch() as watch:
        loss = linear_cross_entropy(hidden, weight, labels, bias, chunk=16, reduction=reduction)
        gradients(loss.sum(), (hidden, weight, bias))
    assert watch.largest == 16 * 200
    with Watch() as watch:
        reference(hidden, weight, bias, labels).backward()
    assert watch.largest == 96 * 200


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_backward_twice_gives_the_same(reduction):
    hidden, weight, bias, labels = leaves(5, 7, 3)
    loss = linear_cross_entropy(hidden, weight, labels, bias, reduction=reduction).sum()
    loss.backward(retain_graph=True)
    first = [leaf.grad.clone() for leaf in (hidden, weight, bias)]
    loss.backward()
    for leaf, once in zip((hidden, weight, bias), first):
        assert_near(leaf.grad, 2 * once)


def test_under_autocast_only_the_products_are_narrow():
    hidden, weight, bias, labels = (
        one.detach().float().requires_grad_() if one.is_floating_point() else one
        for one in leaves(40, 300, 16)
    )
    exact = reference(hidden.double(), weight.double(), bias.double(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        ours = linear_cross_entropy(hidden, weight, labels, bias, chunk=7)
        theirs = reference(hidden, weight, bias, labels)
    assert ours.dtype == torch.float32
    assert abs((ours - exact).item()) < 0.02
    of_ours, of_theirs, of_exact = (
        gradients(loss, (hidden, weight, bias)) for loss in (ours, theirs, exact)
    )
    for mine, other, true in zip(of_ours, of_theirs, of_exact):
        assert mine.dtype == torch.float32
        size = float(true.norm())
        # as good as the plain form under autocast, which rounds its sums over rows too
        assert float((mine - true).norm()) < max(1.2 * float((other - true).norm()), 0.01 * size)
        assert float((mine - true).norm()) < 0.05 * size


def test_half_precision_inputs_get_gradients_of_their_type():
    hidden, weight, bias, labels = (
        one.detach().bfloat16().requires_grad_() if one.is_floating_point() else one
        for one in leaves(10, 30, 4)
    )
    loss = linear_cross_entropy(hidden, weight, labels, bias, chunk=3)
    assert loss.dtype == torch.float32
    for leaf, part in zip((hidden, weight, bias), gradients(loss, (hidden, weight, bias))):
        assert part.dtype == leaf.dtype == torch.bfloat16
        exact = reference(hidden.double(), weight.double(), bias.double(), labels)
        true = torch.autograd.grad(exact, leaf)[0].double()
        assert float((part.double() - true).norm()) < 0.02 * float(true.norm())


def test_float64_stays_float64_under_autocast():
    hidden, weight, bias, labels = leaves(5, 7, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, labels, bias)
    assert_near(loss, reference(hidden, weight, bias, labels))


def test_logits_far_from_zero_do_not_overflow():
    hidden = torch.tensor([[1e4], [-1e4]])
    weight = torch.tensor([[1.0], [-1.0], [0.5]])
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0, 0]), reduction="none")
    assert loss.tolist() == [0.0, 2e4]


def test_the_plain_twin_is_the_same_and_has_second_derivatives():
    hidden, weight, bias, labels = leaves(5, 7, 3)
    for some in (labels, torch.full_like(labels, -100)):
        ours = linear_cross_entropy(hidden, weight, some, bias)
        plain = linear_cross_entropy_plain(hidden, weight, some, bias)
        assert_near(ours, plain)
    plain = linear_cross_entropy_plain(hidden, weight, labels, bias)
    (first,) = torch.autograd.grad(plain, hidden, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), hidden)[0].any()
    ours = linear_cross_entropy(hidden, weight, labels, bias)
    (first,) = torch.autograd.grad(ours, hidden, create_graph=True)
    with pytest.raises(NotImplementedError, match="linear_cross_entropy_plain has them"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 7])}, r"label 7 is not in a vocabulary of 7 words \(0 to 6\)"),
        ({"labels": torch.tensor([-1, 0])}, "label -1 is not in a vocabulary"),
        ({"label_smoothing": 1.5}, "label_smoothing 1.5 is not in 0..1"),
        ({"chunk": 0}, "chunk 0 is not at least 1"),
    ],
)
def test_what_cannot_be_computed_is_said(change, message):
    hidden, weight, _, labels = leaves(2, 7, 3)
    with pytest.raises(UserError, match=message):
        linear_cross_entropy(**{"hidden": hidden, "weight": weight, "labels": labels, **change})
