"""Cached steps and accumulation with full negatives against one pass over the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from plait.core.errors import UserError
from plait.objectives import cached_step, info_nce, info_nce_plain, sigmoid_loss, sigmoid_loss_plain


class Towers(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left = nn.Sequential(nn.Linear(5, 8), nn.Dropout(dropout), nn.Linear(8, 3)).double()
        self.right = nn.Linear(4, 3).double()
        self.scale = nn.Parameter(torch.tensor(9.0, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(-3.0, dtype=torch.float64))

    def embed(self, rows: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {
            "left": normalize(self.left(rows[0]), dim=1),
            "right": normalize(self.right(rows[1]), dim=1),
        }

    def gradients(self) -> list[Tensor]:
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters()]


def batch(left: int = 11, right: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(count, width, dtype=torch.float64, generator=generator)
        for count, width in ((left, 5), (right, 4))
    )  # type: ignore[return-value]


IDS = (
    torch.tensor([0, 1, 1, 2, 3, 3, 3, 9, 4, 5, 6]),
    torch.tensor([1, 0, 2, 2, 3, 3, 8, 4, 5, 7, 6]),
)


def losses(model: Towers, embedded: dict[str, Tensor], plain: bool = False) -> Tensor:
    nce, sigmoid = (info_nce_plain, sigmoid_loss_plain) if plain else (info_nce, sigmoid_loss)
    sides = embedded["left"], embedded["right"]
    return nce(*sides, model.scale, *IDS) + sigmoid(*sides, model.scale, model.bias, *IDS)


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-12


@pytest.mark.parametrize("cuts", [(11,), (4, 4, 3), (1, 9, 1), (1,) * 11])
def test_a_cached_step_has_the_gradients_of_the_whole_batch(cuts):
    left, right = batch()
    whole, cached = Towers(), Towers()
    expected = losses(whole, whole.embed((left, right)), plain=True)
    expected.backward()
    chunks = list(zip(left.split(cuts), right.split(cuts), strict=True))
    value = cached_step(cached.embed, chunks, lambda rows: losses(cached, rows))
    assert not value.requires_grad
    assert_same([value], [expected.detach()])
    assert_same(cached.gradients(), whole.gradients())
    assert cached.scale.grad.abs() > 0.01


def test_accumulated_micro_batches_have_full_negatives_and_the_scale_learns_once():
    # The mean of the micro-batches' own losses is something else: it has fewer negatives.
    left, right = batch()
    whole, cached, naive = Towers(), Towers(), Towers()
    losses(whole, whole.embed((left, right)), plain=True).backward()
    micro = list(zip(left.split(4), right.split(4), strict=True))
    cached_step(cached.embed, micro, lambda rows: losses(cached, rows))
    assert_same(cached.gradients(), whole.gradients())
    for chunk in micro:
        rows = naive.embed(chunk)
        (info_nce(rows["left"], rows["right"], naive.scale) / len(micro)).backward()
    assert (naive.scale.grad - whole.scale.grad).abs() > 1e-3


def test_chunks_may_have_different_numbers_of_rows_a_side():
    left, right = batch()
    whole, cached = Towers(), Towers()
    losses(whole, whole.embed((left, right)), plain=True).backward()
    chunks = [(left[:7], right[:2]), (left[7:], right[2:9]), (left[:0], right[9:])]
    cached_step(cached.embed, chunks, lambda rows: losses(cached, rows))
    assert_same(cached.gradients(), whole.gradients())


def test_dropout_drops_the_same_in_both_passes():
    left, right = batch()
    chunks = list(zip(left.split(4), right.split(4), strict=True))
    one_pass, cached = Towers(dropout=0.5), Towers(dropout=0.5)
    torch.manual_seed(7)
    parts = [one_pass.embed(chunk) for chunk in chunks]  # the same chunks, all graphs kept
    rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    losses(one_pass, rows).backward()
    after = torch.rand(3)
    torch.manual_seed(7)
    cached_step(cached.embed, chunks, lambda rows: losses(cached, rows))
    assert_same(cached.gradients(), one_pass.gradients())
    assert torch.equal(torch.rand(3), after)  # random numbers go on as if there were one pass


def test_gradients_are_added_to_what_is_there():
    left, right = batch()
    model, twice = Towers(), Towers()
    for _ in range(2):
        cached_step(twice.embed, [(left, right)], lambda rows: losses(twice, rows))
    cached_step(model.embed, [(left, right)], lambda rows: losses(model, rows))
    assert_same(twice.gradients(), [2 * gradient for gradient in model.gradients()])


def test_a_frozen_tower_and_an_unused_embedding_are_no_trouble():
    left, right = batch()
    whole, cached = Towers(), Towers()
    for model in (whole, cached):
        model.right.requires_grad_(False)
    losses(whole, whole.embed((left, right)), plain=True).backward()

    def embed(rows: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {**cached.embed(rows), "unused": cached.left(rows[0])}

    chunks = list(zip(left.split(4), right.split(4), strict=True))
    cached_step(embed, chunks, lambda rows: losses(cached, rows))
    assert_same(cached.gradients(), whole.gradients())
    cached.left.requires_grad_(False)  # only scale and bias learn
    cached.zero_grad()
    cached_step(embed, chunks, lambda rows: losses(cached, rows))
    assert_same([cached.scale.grad], [whole.scale.grad])


def test_no_more_than_one_chunk_has_a_graph_at_a_time():
    model = Towers()
    alive: list[int] = []

    def embed(rows: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        alive.append(len(rows[0]) if torch.is_grad_enabled() else 0)
        return model.embed(rows)

    left, right = batch()
    cached_step(
        embed, list(zip(left.split(4), right.split(4), strict=True)), lambda r: losses(model, r)
    )
    assert alive == [0, 0, 0, 4, 4, 3]


def test_loss_scaling_and_no_sync_are_handed_through():
    left, right = batch()
    plain, scaled = Towers(), Towers()
    entered: list[str] = []

    class NoSync:
        def __enter__(self) -> None:
            entered.append("no_sync")

        def __exit__(self, *_: object) -> None:
            entered.append("end")

    chunks = list(zip(left.split(4), right.split(4), strict=True))
    cached_step(plain.embed, chunks, lambda rows: losses(plain, rows))
    cached_step(
        scaled.embed,
        chunks,
        lambda rows: losses(scaled, rows),
        backward=lambda loss: (1024 * loss).backward(),
        no_sync=NoSync,
    )
    for one, other in zip(scaled.gradients(), plain.gradients(), strict=True):
        assert torch.allclose(one, 1024 * other, rtol=1e-12)
    assert entered == ["no_sync", "end"] * 3  # the loss and all chunks but the last


def test_no_chunks_are_refused():
    with pytest.raises(UserError, match="at least one chunk"):
        cached_step(lambda rows: {}, [], lambda rows: torch.zeros(()))
