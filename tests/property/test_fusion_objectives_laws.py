"""Laws of the objectives of fusion models, for any batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plait.objectives import (
    cosine_cost,
    hard_negatives,
    hard_pairing,
    ipot,
    mask_regions,
    mask_tokens,
    random_pairing,
    ranking_loss,
    soft_targets,
    word_region_alignment,
)

FEW = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**20)
sizes = st.integers(1, 7)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mask_of(rows: int, columns: int, source: torch.Generator) -> Tensor:
    return torch.rand(rows, columns, generator=source) < 0.7


@FEW
@given(sizes, sizes, seeds, st.floats(0.01, 1.0))
def test_masking_touches_what_it_may_and_labels_what_it_touches(rows, words, seed, share):
    source = generator(seed)
    ids = torch.randint(0, 9, (rows, words), generator=source)
    mask = mask_of(rows, words, source)
    hidden, labels = mask_tokens(
        ids, mask, special=(0, 1), vocabulary=9, mask_id=2, generator=source, share=share
    )
    chosen = labels >= 0
    allowed = mask & (ids > 2)
    assert not (chosen & ~allowed).any()
    assert torch.equal(chosen.any(1), allowed.any(1))
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert (hidden[chosen] >= 2).all()
    regions = mask_regions(mask, generator=source, share=share)
    assert not (regions & ~mask).any()
    assert torch.equal(regions.any(1), mask.any(1))


def problem(
    batch: int, rows: int, columns: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source = generator(seed)
    left, right = (
        torch.randn(batch, count, 3, generator=source, dtype=torch.float64)
        for count in (rows, columns)
    )
    return left, right, mask_of(batch, rows, source), mask_of(batch, columns, source)


@FEW
@given(st.integers(1, 3), sizes, sizes, seeds, st.integers(1, 60))
def test_a_plan_moves_all_that_is_there_and_nothing_else(batch, rows, columns, seed, iterations):
    left, right, left_mask, right_mask = problem(batch, rows, columns, seed)
    plan = ipot(cosine_cost(left, right), left_mask, right_mask, iterations=iterations)
    real = left_mask[:, :, None] & right_mask[:, None, :]
    assert (plan >= 0).all()
    assert plan[~real].eq(0).all()
    some = real.any(dim=(1, 2), keepdim=True)[:, 0]
    wanted = (right_mask & some) / right_mask.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(plan.sum(1), wanted.double(), atol=1e-7, rtol=0)


@FEW
@given(sizes, sizes, seeds)
def test_row_sums_are_right_in_the_end(rows, columns, seed):
    left, right, _, _ = problem(2, rows, columns, seed)
    every = [torch.ones(2, count, dtype=torch.bool) for count in (rows, columns)]
    plan = ipot(cosine_cost(left, right), *every, iterations=1000)
    torch.testing.assert_close(
        plan.sum(2), torch.full_like(plan[:, :, 0], 1 / rows), atol=2e-3, rtol=0
    )


@FEW
@given(sizes, sizes, seeds, st.integers(0, 5), st.integers(0, 5))
def test_padding_changes_no_plan(rows, columns, seed, more_rows, more_columns):
    left, right, left_mask, right_mask = problem(2, rows, columns, seed)
    cost = cosine_cost(left, right)
    plan = ipot(cost, left_mask, right_mask)
    wide = torch.nn.functional.pad(cost, (0, more_columns, 0, more_rows), value=float("nan"))
    masks = [
        torch.nn.functional.pad(mask, (0, more))
        for mask, more in ((left_mask, more_rows), (right_mask, more_columns))
    ]
    found = ipot(wide, *masks)
    torch.testing.assert_close(found[:, :rows, :columns], plan, atol=1e-12, rtol=1e-9)
    assert found[:, rows:].eq(0).all()
    assert found[:, :, columns:].eq(0).all()


@FEW
@given(sizes, sizes, seeds)
def test_plans_follow_a_permutation_and_ignore_a_constant(rows, columns, seed):
    left, right, left_mask, right_mask = problem(2, rows, columns, seed)
    cost = cosine_cost(left, right)
    plan = ipot(cost, left_mask, right_mask)
    source = generator(seed)
    p, q = (torch.randperm(count, generator=source) for count in (rows, columns))
    moved = ipot(cost[:, p][:, :, q] + 7, left_mask[:, p], right_mask[:, q])
    torch.testing.assert_close(moved, plan[:, p][:, :, q], atol=1e-12, rtol=1e-9)
    matched = torch.tensor([True, False])
    one, other = (
        word_region_alignment(left[r], right[r], left_mask[r], right_mask[r], matched[r])
        for r in (torch.tensor([0, 1]), torch.tensor([1, 0]))
    )
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@FEW
@given(st.integers(1, 8), st.integers(1, 4), seeds)
def test_negatives_are_never_of_the_same_group(rows, groups, seed):
    source = generator(seed)
    group = torch.randint(0, groups, (rows,), generator=source)
    similarity = 100 * torch.randn(rows, rows, generator=source)
    column, found = hard_negatives(similarity, group, generator=source)
    assert (group[column] != group)[found].all()
    assert found.all() == (len(group.unique()) > 1)
    for plan in (
        random_pairing(group, generator=source),
        hard_pairing(similarity, group, generator=source),
    ):
        same = group[plan.left] == group[plan.right]
        assert torch.equal(same, plan.matched)
        assert torch.equal(plan.left[plan.matched], plan.right[plan.matched])


@FEW
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=10), st.randoms(), st.booleans())
def test_targets_do_not_depend_on_who_answered_first(answers, random, exact):
    targets = soft_targets(torch.tensor([answers]), 5, exact=exact)
    assert ((targets >= 0) & (targets <= 1)).all()
    shuffled = random.sample(answers, len(answers))
    assert torch.equal(targets, soft_targets(torch.tensor([shuffled]), 5, exact=exact))
    order = targets[0].argsort(stable=True)
    counts = torch.tensor([answers.count(one) for one in range(5)])
    assert (counts[order].diff() >= 0)[targets[0][order].diff() > 0].all()


@FEW
@given(st.integers(1, 5), st.integers(1, 5), seeds, st.floats(0, 1))
def test_ranking_falls_as_the_right_one_rises(rows, wrong, seed, margin):
    source = generator(seed)
    right = torch.randn(rows, generator=source, dtype=torch.float64)
    others = torch.randn(rows, wrong, generator=source, dtype=torch.float64)
    low, high = (ranking_loss(right + up, others, margin=margin) for up in (0.0, 1.0))
    assert 0 <= high <= low <= margin + 1
