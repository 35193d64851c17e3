"""Laws of choosing a batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plait.serving.queue.batching import choose

LENGTHS = st.lists(st.integers(1, 80), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 400), st.integers(1, 20))
def test_the_oldest_is_in_it_and_the_padded_cost_within_the_budget(
    lengths: list[int], budget: int, rows: int
) -> None:
    chosen = choose(lengths, budget=budget, rows=rows)
    assert 0 in chosen
    assert len(chosen) == len(set(chosen)) <= rows
    taken = [lengths[place] for place in chosen]
    assert taken == sorted(taken)
    assert len(chosen) == 1 or len(chosen) * max(taken) <= budget


@given(LENGTHS, st.integers(1, 400), st.integers(1, 20))
def test_nothing_that_fits_is_left_out_at_the_ends(
    lengths: list[int], budget: int, rows: int
) -> None:
    chosen = choose(lengths, budget=budget, rows=rows)
    if len(chosen) == rows:
        return
    taken = [lengths[place] for place in chosen]
    for place, length in enumerate(lengths):
        if place not in chosen:
            assert (len(chosen) + 1) * max([*taken, length]) > budget


def test_inputs_of_like_length_share_a_pass() -> None:
    lengths = [10, 77, 9, 70, 11, 3, 76]
    assert sorted(choose(lengths, budget=44, rows=8)) == [0, 2, 4, 5]
    # The long ones come next, when the first of them is the oldest.
    assert sorted(choose([77, 70, 76], budget=240, rows=8)) == [0, 1, 2]


def test_equal_costs_go_in_order_of_arrival() -> None:
    assert choose([5] * 10, budget=20, rows=64) == [0, 1, 2, 3]
