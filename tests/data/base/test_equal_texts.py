"""Who is right for whom, against loops that ask every pair."""

from __future__ import annotations

import numpy as np
import pytest

from plait.data.base.equal_texts import RightAnswers, joined, normalised, text_numbers


def slow_right(groups: np.ndarray, owner: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(n, m): some picture of the group has some text that reads so."""
    return np.array(
        [
            [
                any(
                    groups[owner[k]] == groups[i] and words[k] == words[j]
                    for k in range(len(owner))
                )
                for j in range(len(owner))
            ]
            for i in range(len(groups))
        ]
    )


@pytest.mark.parametrize("seed", range(12))
def test_right_answers_are_those_of_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, m = random.integers(2, 12), random.integers(2, 25)
    groups = random.integers(random.integers(1, 9), size=n) * 7
    owner, words = random.integers(n, size=m), random.integers(random.integers(1, 20), size=m) - 3
    expected, found = slow_right(groups, owner, words), RightAnswers.of(groups, owner, words)
    np.testing.assert_array_equal(~found.wrong(slice(None), slice(None)), expected)
    rows, columns = random.permutation(n)[: n // 2 + 1], slice(1, m, 2)
    np.testing.assert_array_equal(~found.wrong(rows, columns), expected[rows][:, columns])
    np.testing.assert_array_equal(found.asked(), expected.any(axis=1))
    assert found.right_count() == expected.sum()
    pairs = random.integers(n, size=40), random.integers(m, size=40)
    np.testing.assert_array_equal(found.right_pairs(*pairs), expected[pairs])
    covered = np.zeros((n, m), int)
    for block in found.blocks():
        covered[np.ix_(*block)] += 1
    np.testing.assert_array_equal(covered, expected.astype(int))  # each right pair once
    own = random.random(m) < 0.5
    if own.any():
        part = found.among(own)
        np.testing.assert_array_equal(~part.wrong(slice(None), slice(None)), expected[:, own])
        np.testing.assert_array_equal(part.asked(), expected[:, own].any(axis=1))


def test_one_shared_caption_does_not_lend_the_others() -> None:
    # picture 0: "a bike", "a red bike"; picture 1: "a bike", "a blue bike"
    words = text_numbers(["a bike", "a red bike", "A bike.", "a blue bike"])
    right = ~RightAnswers.of(np.arange(2), np.array([0, 0, 1, 1]), words).wrong(
        slice(None), slice(None)
    )
    np.testing.assert_array_equal(right, [[1, 1, 1, 0], [1, 0, 1, 1]])


def test_without_words_a_text_is_its_own_groups_alone() -> None:
    answers = RightAnswers.of(np.array([5, 5, 2]), np.array([0, 2, 2]))
    np.testing.assert_array_equal(
        answers.wrong(slice(None), slice(None)), [[0, 1, 1], [0, 1, 1], [1, 0, 0]]
    )


@pytest.mark.parametrize("seed", range(8))
def test_joined_rows_are_the_components_of_a_walk(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups, words = random.integers(40, size=30) - 5, random.integers(25, size=30) * 3
    ids = joined(groups, words)
    for start in range(30):
        reached, grown = {start}, True
        while grown:
            more = {
                b
                for a in reached
                for b in range(30)
                if groups[a] == groups[b] or words[a] == words[b]
            }
            grown, reached = more != reached, more
        assert {row for row in range(30) if ids[row] == ids[start]} == reached
        assert ids[start] == min(groups[row] for row in reached)


def test_no_row_has_no_id() -> None:
    assert joined(np.zeros(0, int), np.zeros(0, int)).tolist() == []


def test_texts_that_read_the_same() -> None:
    same = ["A red bike!", "a  red bike", "Ａ RED BIKE", "a-red-bike"]
    assert text_numbers([*same, "a red bikes", "…", "..."]).tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert normalised("C++") != normalised("C")  # symbols are no punctuation
    assert normalised("红色 自行车。") == "红色 自行车"
