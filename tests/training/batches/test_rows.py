from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.training.batches.rows import RowPlan, Texts


def epoch_of(plan: RowPlan, epoch: int) -> list[tuple[int, int]]:
    batches = [plan.batch(epoch, k) for k in range(plan.steps)]
    return [(int(s), int(t)) for b in batches for s, t in zip(b.sample, b.text)]


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    batch=st.integers(2, 12),
    texts=st.sampled_from(["one", "all", "first"]),
    seed=st.integers(0, 3),
)
def test_rows_are_true_pairs_and_none_comes_twice(
    counts: list[int], batch: int, texts: str, seed: int
) -> None:
    plan = RowPlan(counts, texts=texts, batch_size=batch, seed=seed)
    owner = np.repeat(np.arange(len(counts)), counts)
    rows = epoch_of(plan, 3)
    assert all(owner[text] == sample for sample, text in rows)
    assert len(set(rows)) == len(rows) == plan.steps * plan.batch_size
    assert plan.rows - len(rows) < plan.batch_size
    if texts != "all":
        assert len({sample for sample, _ in rows}) == len(rows)


def test_every_text_has_its_turn() -> None:
    plan = RowPlan([3, 1, 2], texts="one", batch_size=3, seed=0)
    seen = {row for epoch in range(3) for row in epoch_of(plan, epoch)}
    assert {text for sample, text in seen if sample == 0} == {0, 1, 2}
    assert {text for sample, text in seen if sample == 2} == {4, 5}


def test_epochs_differ_and_repeat_exactly() -> None:
    one, two = (RowPlan([2] * 20, texts="one", batch_size=4, seed=1) for _ in range(2))
    assert epoch_of(one, 0) == epoch_of(two, 0)
    assert epoch_of(one, 0) != epoch_of(one, 1)
    assert epoch_of(one, 0) != epoch_of(RowPlan([2] * 20, texts="one", batch_size=4, seed=2), 0)


def test_shares_make_up_the_batch() -> None:
    plan = RowPlan([1] * 11, texts="first", batch_size=5, seed=0, world=2)
    assert plan.batch_size == 4
    whole = plan.batch(0, 1)
    parts = [whole.share(rank, 2) for rank in range(2)]
    assert np.concatenate([part.sample for part in parts]).tolist() == whole.sample.tolist()


def test_all_slots_are_drawn() -> None:
    plan = RowPlan([1] * 64, texts="first", batch_size=64, seed=0, slots=3)
    assert set(plan.batch(0, 0).slot.tolist()) == {0, 1, 2}


def test_small_sets_are_one_batch() -> None:
    plan = RowPlan([1] * 20, texts="one", batch_size=512, seed=0)
    assert (plan.steps, plan.batch_size) == (1, 20)


def test_a_sample_without_text_is_refused() -> None:
    with pytest.raises(AssertionError, match="needs a text"):
        RowPlan([1, 0], texts="one", batch_size=2, seed=0)


@pytest.mark.parametrize("texts", ["one", "all"])
def test_repeated_samples_come_again_with_their_next_text(texts: Texts) -> None:
    plan = RowPlan([2, 3, 1], texts=texts, batch_size=1, seed=0, repeats=np.array([2, 1, 3]))
    seen = epoch_of(plan, 0)
    first = {"one": [(0, 0), (0, 1)], "all": [(0, 0), (0, 0), (0, 1), (0, 1)]}[texts]
    assert sorted(row for row in seen if row[0] == 0) == first
    assert seen.count((2, 5)) == 3
    assert len([row for row in seen if row[0] == 1]) == {"one": 1, "all": 3}[texts]
