"""Caption measures against torchmetrics and a slow CIDEr-D written from its formula."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from torchmetrics.functional.text import bleu_score, rouge_score

from plait.evaluation.metrics.captions import (
    DocumentFrequencies,
    bleu,
    bleu_statistics,
    cider_d,
    rouge_l,
)


def corpus(captions: int, seed: int, longest: int = 12) -> tuple[list[str], list[list[str]]]:
    """Captions that resemble their references: the same words with some changed."""
    drawn = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(9)]

    def changed(words: list[str]) -> str:
        kept = [w if drawn.random() < 0.8 else drawn.choice(vocabulary) for w in words]
        return " ".join(kept[: drawn.randint(1, len(kept))])

    said, written = [], []
    for _ in range(captions):
        words = drawn.choices(vocabulary, k=drawn.randint(1, longest))
        said.append(changed(words))
        written.append([changed(words) for _ in range(drawn.randint(1, 5))])
    return said, written


def words(said, written):
    return [one.split() for one in said], [[one.split() for one in several] for several in written]


@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_torchmetrics(seed):
    said, written = corpus(40, seed)
    ours = bleu(bleu_statistics(*words(said, written)).sum(0))
    by_length = [sorted(several, key=lambda one: len(one.split())) for several in written]
    for n in range(1, 5):  # of references equally close, theirs takes the first
        assert ours[n - 1] == pytest.approx(bleu_score(said, by_length, n_gram=n).item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_rouge_l_is_torchmetrics(seed):
    said, written = corpus(12, seed)
    for one, several, ours in zip(said, written, rouge_l(*words(said, written)), strict=True):
        found = [rouge_score(one, text, rouge_keys="rougeL") for text in several]
        precision = max(each["rougeL_precision"].item() for each in found)
        recall = max(each["rougeL_recall"].item() for each in found)
        below = recall + 1.44 * precision
        theirs = 2.44 * precision * recall / below if below else 0.0
        assert ours == pytest.approx(theirs, abs=1e-6)


def slow_cider_d(said, written, documents) -> list[float]:
    """Vedantam et al. 2015, section 5, with dense vectors over all n-grams that could matter."""
    listed = [said, *written, *documents]
    vocabulary = sorted({word for texts in listed for text in texts for word in text})
    index = {word: i for i, word in enumerate(vocabulary)}

    def counts(text: list[str], n: int) -> np.ndarray:
        vector = np.zeros((len(vocabulary),) * n)
        for start in range(len(text) - n + 1):
            vector[tuple(index[w] for w in text[start : start + n])] += 1
        return vector.ravel()

    scores = np.zeros(len(said))
    for n in range(1, 5):
        seen = sum(np.minimum(1, sum(counts(r, n) for r in several)) for several in documents)
        weight = np.log(len(documents) / np.maximum(1, seen))
        for i, (caption, several) in enumerate(zip(said, written, strict=True)):
            g = counts(caption, n) * weight
            for reference in several:
                r = counts(reference, n) * weight
                lengths = np.linalg.norm(g) * np.linalg.norm(r)
                if lengths == 0:
                    continue
                gauss = math.exp(-((len(caption) - len(reference)) ** 2) / (2 * 6**2))
                scores[i] += gauss * np.minimum(g, r) @ r / lengths / len(several) / 4 * 10
    return scores.tolist()


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_cider_d_is_its_formula(seed, own):
    said, written = words(*corpus(8, seed))
    documents = written if own else words(*corpus(8, seed + 50))[1]
    known = None if own else DocumentFrequencies.of(documents)
    theirs = slow_cider_d(said, written, documents)
    assert max(theirs) > 1
    assert cider_d(said, written, known) == pytest.approx(theirs, abs=1e-12)
