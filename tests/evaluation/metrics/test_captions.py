"""Caption measures by hand; against other implementations in tests/parity/test_captions.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plait.core.errors import DataError
from plait.evaluation.metrics.captions import (
    DocumentFrequencies,
    bleu,
    bleu_statistics,
    cider_d,
    evaluate_captions,
    rouge_l,
)
from plait.evaluation.metrics.tokenize import TOKENISER, caption_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man, riding a horse.", "a man riding a horse"),
        ("Two dogs' bowls -- and one cat's!", "two dogs bowls and one cat 's"),
        ("It doesn’t fit; we'll see...", "it does n't fit we 'll see"),
        ("She'd've said \"cannot\" (twice)", "she 'd 've said can not twice"),
        ("a black-and-white t-shirt", "a black-and-white t-shirt"),
        ("1,000 cars at 10:30 p.m. cost $3.50", "1,000 cars at 10:30 p.m. cost $ 3.50"),
        ("dog.cat?bird", "dog cat bird"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ，ｔｅｘｔ", "full width text"),
        ("café naïve", "café naïve"),
        ("五只猫，在“树”下。", "五 只 猫 在 树 下"),
        ("一台MacBook电脑", "一 台 macbook 电 脑"),
        ("ねこが いる。", "ね こ が い る"),
        ("고양이 두 마리", "고양이 두 마리"),
        ("हिन्दी में", "हिन्दी में"),
        ("a 🐱 sits_here", "a 🐱 sits here"),
        ("?!", ""),
    ],
)
def test_captions_become_words(text, words):
    assert caption_words(text) == words.split()


def split(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def bleu_of(said: str, *written: str) -> list[float]:
    return bleu(bleu_statistics(split(said), [split(*written)])[0]).tolist()


def test_bleu_clips_as_in_its_paper():
    # Papineni et al. 2002, section 2.1: modified unigram precision 2/7; closest length 7
    found = bleu_of("the " * 7, "the cat is on the mat", "there is a cat on the mat")
    assert found == pytest.approx([2 / 7, 0, 0, 0], abs=1e-12)


def test_bleu_of_short_captions_is_cut():
    assert bleu_of("the cat", "the cat sat")[:2] == pytest.approx([math.exp(1 - 3 / 2)] * 2)
    # 3 and 5 words are equally close to 4: the shorter counts, and nothing is cut
    assert bleu_of("a b c d", "a b c d e", "a b c")[3] == pytest.approx(1)
    assert bleu_of("a b c d", "a b c d e")[3] == pytest.approx(math.exp(1 - 5 / 4))


def test_bleu_of_a_corpus_adds_up_before_it_divides():
    rows = bleu_statistics(split("a b", "c x y z"), [split("a b"), split("c d e f")])
    # unigrams 3 of 6, bigrams 1 of 4, no length lost
    assert bleu(rows.sum(0))[:2] == pytest.approx([3 / 6, math.sqrt(3 / 6 * 1 / 4)])


def test_an_empty_caption_scores_nothing():
    said, written = split(""), [split("a b", "c")]
    assert bleu(bleu_statistics(said, written).sum(0)).tolist() == [0] * 4
    assert rouge_l(said, written).tolist() == [0]
    assert cider_d(said, written).tolist() == [0]


def test_rouge_l_of_its_paper():
    # Lin 2004, section 3.1: S2 shares "police the gunman", S3 "the gunman"
    said = split("police kill the gunman", "the gunman kill police")
    found = rouge_l(said, [split("police killed the gunman")] * 2)
    assert found == pytest.approx([0.75, 0.5], abs=1e-12)


def test_rouge_l_takes_precision_and_recall_from_the_best_reference_each():
    # P = 3/3 from the first reference, R = 1/1 from the second
    found = rouge_l(split("a b c"), [split("a b c d e f", "b")])
    assert found == pytest.approx([1], abs=1e-12)
    # P = 2/3, R = 2/5: F = 2.44 P R / (R + 1.44 P)
    found = rouge_l(split("a x b"), [split("a b c d e")])
    assert found == pytest.approx([2.44 * 2 / 3 * 0.4 / (0.4 + 1.44 * 2 / 3)], abs=1e-12)


# every word is in the references of one of two pictures, so each n-gram weighs ln 2
OTHER = ("z", ["z"])


def cider_of(said: str, *written: str) -> float:
    references = [split(*written), [OTHER[1]]]
    return float(cider_d(split(said, OTHER[0]), references)[0])


def test_cider_d_by_hand():
    # words and pairs agree fully, triples and quadruples do not exist
    assert cider_of("a b", "a b") == pytest.approx(10 * 2 / 4)
    # (2, 0) against (1, 1): min(2, 1) * 1 / (2 sqrt 2); the cosine without clipping is twice that
    assert cider_of("a a", "a b") == pytest.approx(10 / (2 * math.sqrt(2)) / 4)
    # (1, 0) against (1, 1), a word shorter
    assert cider_of("a", "a b") == pytest.approx(10 / math.sqrt(2) * math.exp(-1 / 72) / 4)
    # the mean over references
    assert cider_of("a b", "a b", "c d") == pytest.approx(10 * 2 / 4 / 2)
    assert cider_of("a b c d e", "a b c d e") == pytest.approx(10)


def test_what_is_said_of_all_pictures_weighs_nothing():
    references = [split("a cat"), split("a dog")]
    assert DocumentFrequencies.of(references).weight(("a",)) == 0
    assert DocumentFrequencies.of(references).weight(("cat",)) == pytest.approx(math.log(2))
    assert DocumentFrequencies.of(references).weight(("bird",)) == pytest.approx(math.log(2))
    assert cider_d(split("a", "a"), references).tolist() == [0, 0]
    # of one picture alone nothing can be told apart
    assert cider_d(split("a cat"), [split("a cat")]).tolist() == [0]


def test_frequencies_of_another_corpus():
    known = DocumentFrequencies({("a",): 10, ("cat",): 1}, pictures=10)
    # "a" weighs 0, "cat" and the unseen "a cat" ln 10
    assert cider_d(split("a cat"), [split("a cat")], known) == pytest.approx([10 * 2 / 4])
    # counted once a picture, however often it is said
    assert DocumentFrequencies.of([split("b b", "b")]).counts[("b",)] == 1


SAID = ["A red car.", "two dogs play in the snow", "a man's hat", "", "a plate of food on a table"]
WRITTEN = [
    ["a red car", "the car is red"],
    ["two dogs playing in snow", "dogs in the snow"],
    ["a hat", "a man with a hat"],
    ["a bird"],
    ["food on a plate", "a plate with food on the table", "dinner"],
]


def test_all_measures_at_once():
    found = evaluate_captions(SAID, WRITTEN, bootstrap=200)
    said = [caption_words(one) for one in SAID]
    written = [[caption_words(one) for one in several] for several in WRITTEN]
    expected = 100 * bleu(bleu_statistics(said, written).sum(0))
    assert [found[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(expected.tolist())
    assert found["rouge_l"] == pytest.approx(100 * rouge_l(said, written).mean())
    assert found["cider_d"] == pytest.approx(cider_d(said, written).mean())
    for name in ("bleu_1", "bleu_4", "rouge_l", "cider_d"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert found["cider_d_low"] < found["cider_d_high"]
    assert (found["captions"], found["references"], found["distinct"]) == (5, 10, 5)
    assert found["tokeniser"] == TOKENISER


def test_intervals_are_quantiles_of_figures_of_drawn_corpora():
    groups = ["x", "x", "y", "z", "z"]
    members = [[0, 1], [2], [3, 4]]
    known = DocumentFrequencies.of([[caption_words(t) for t in several] for several in WRITTEN])
    found = evaluate_captions(SAID, WRITTEN, groups=groups, frequencies=known, bootstrap=30, seed=5)
    figures = []
    for drawn in np.random.default_rng(5).integers(3, size=(30, 3)):
        rows = [row for group in drawn for row in members[group]]
        one = evaluate_captions(
            [SAID[row] for row in rows],
            [WRITTEN[row] for row in rows],
            frequencies=known,
            bootstrap=0,
        )
        figures.append([one[name] for name in ("bleu_1", "bleu_2", "rouge_l", "cider_d")])
    low, high = np.quantile(figures, [0.025, 0.975], axis=0)
    for i, name in enumerate(("bleu_1", "bleu_2", "rouge_l", "cider_d")):
        assert found[f"{name}_low"] == pytest.approx(low[i], abs=1e-9)
        assert found[f"{name}_high"] == pytest.approx(high[i], abs=1e-9)


def test_scores_of_others_are_averaged_too():
    scores = {"clip_score": np.array([0.5, 0.7, 0.6, 0.1, 0.6])}
    found = evaluate_captions(SAID, WRITTEN, scores=scores, bootstrap=0)
    assert found["clip_score"] == pytest.approx(0.5)
    assert not any(name.endswith("_low") for name in found)


def test_a_model_that_always_says_the_same_is_seen():
    assert evaluate_captions(["a cat"] * 5, WRITTEN, bootstrap=0)["distinct"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": SAID[:4]}, "4 captions, but 5 lists of references"),
        ({"predictions": [], "references": []}, "there is no caption to judge"),
        ({"references": [*WRITTEN[:4], []]}, "caption 5 has no reference: leave it out"),
        ({"references": [*WRITTEN[:4], "a"]}, "references of caption 5 are one text"),
        ({"groups": ["x"]}, "5 captions, but 1 groups"),
        ({"scores": {"mine": np.zeros(2)}}, "5 captions, but 2 scores 'mine'"),
    ],
)
def test_what_cannot_be_judged_is_said(change, message):
    with pytest.raises(DataError, match=message):
        evaluate_captions(**{"predictions": SAID, "references": WRITTEN, **change})
