"""Laws of the caption measures, for any captions."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.evaluation.metrics.captions import (
    _longest_common,
    bleu,
    bleu_statistics,
    cider_d,
    rouge_l,
)
from plait.evaluation.metrics.tokenize import caption_words

FEW = settings(max_examples=60, deadline=None)
captions = st.lists(st.sampled_from("abcdef"), max_size=9)
several = st.lists(captions, min_size=1, max_size=4)
corpora = st.lists(st.tuples(captions, several), min_size=1, max_size=6)


def all_scores(said, written) -> np.ndarray:
    rows = bleu_statistics(said, written)
    each = [np.stack([bleu(row) for row in rows]).T, rouge_l(said, written), cider_d(said, written)]
    return np.vstack(each)


@FEW
@given(corpora)
def test_scores_stay_in_their_range_and_ignore_the_order_of_references(corpus):
    said, written = zip(*corpus, strict=True)
    found = all_scores(said, written)
    assert (found >= 0).all()
    assert (found[:5] <= 1 + 1e-12).all()
    assert (found[5] <= 10 + 1e-9).all()
    backwards = all_scores(said, [several[::-1] for several in written])
    np.testing.assert_allclose(found, backwards, atol=1e-12)


@FEW
@given(corpora)
def test_saying_what_a_reference_says_is_perfect(corpus):
    written = [several for _, several in corpus if len(several[0]) >= 4]
    if written:
        said = [several[0] for several in written]
        found = all_scores(said, written)
        np.testing.assert_allclose(found[:5], 1, atol=1e-12)
        if len(written) > 1:  # nobody can do better than the one reference itself
            alone = [[one] for one in said]
            assert (cider_d(said, alone) >= cider_d(said[::-1], alone) - 1e-12).all()


@FEW
@given(captions, captions)
def test_the_longest_common_subsequence(one, other):
    @functools.cache
    def longest(i: int, j: int) -> int:
        if i == len(one) or j == len(other):
            return 0
        if one[i] == other[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    assert _longest_common(one, other) == longest(0, 0)


@FEW
@given(st.text(max_size=30))
def test_words_have_no_spaces_and_case_is_gone(text):
    for word in caption_words(text):
        assert word
        assert not any(letter.isspace() for letter in word)
    assert caption_words(f" {text}\n") == caption_words(text)
