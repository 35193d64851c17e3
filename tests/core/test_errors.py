"""Messages repeat a little of what was sent, and never all of it."""

from __future__ import annotations

import time

from plait.core.errors import MOST_SHOWN, did_you_mean, shown


def test_short_values_are_shown_whole() -> None:
    assert shown("a cat") == "'a cat'"
    assert shown(3.5) == "3.5"
    assert shown("x" * MOST_SHOWN) == repr("x" * MOST_SHOWN)


def test_long_values_are_cut_and_their_length_is_told() -> None:
    text = shown("a" * 5_000_000)
    assert text == "'" + "a" * (MOST_SHOWN - 1) + "... (5,000,000 characters)"
    assert len(shown(list(range(100_000)))) < MOST_SHOWN + 40


def test_escapes_do_not_lengthen_it() -> None:
    assert len(shown("\x00" * MOST_SHOWN)) < MOST_SHOWN + 40


def test_a_misspelt_word_is_looked_for_among_words_of_its_kind() -> None:
    assert did_you_mean("splitt", ["year", "split"]) == "; did you mean 'split'?"
    began = time.process_time()
    assert did_you_mean("ab" * 1_000_000, ["ab" * 1_000_000] * 100) == ""
    assert did_you_mean("split", ["splits" * 100_000] * 100) == ""
    assert time.process_time() - began < 0.5
