"""Captions against what people wrote: BLEU, ROUGE-L, CIDEr-D, with intervals.

Everything below `evaluate_captions` takes captions as lists of words (`caption_words`) and gives
figures for each caption, of which the corpus figures and their intervals are made.

Legend: n captions, R replicates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from plait.core.errors import DataError
from plait.evaluation.metrics.retrieval import bootstrap_totals
from plait.evaluation.metrics.tokenize import TOKENISER, caption_words

Words = Sequence[str]
Gram = tuple[str, ...]

ORDERS = (1, 2, 3, 4)
"""Lengths of the n-grams of BLEU and CIDEr-D."""
_BETA = 1.2  # of ROUGE-L in the evaluation of COCO captions
_SIGMA = 6.0  # of CIDEr-D, in words


def evaluate_captions(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    groups: Sequence[str | int] | Shaped[np.ndarray, " n"] | None = None,
    frequencies: DocumentFrequencies | None = None,
    scores: Mapping[str, Float[np.ndarray, " n"]] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All caption measures of a corpus, each with its 95% interval.

    Args:
        predictions: n captions; an empty one counts as wrong.
        references: for each of them what people wrote, at least one caption.
        groups: the picture of each caption where several belong to one; the interval draws whole
            pictures. None: every caption by itself.
        frequencies: for CIDEr-D; None: those of ``references``, as its authors evaluate.
        scores: more figures of each caption, such as those of `plait.evaluation.metrics.clip_score`, to
            be averaged, with intervals too.
        bootstrap: replicates of the percentile interval; 0 leaves the intervals out.
        seed: of the bootstrap.

    Returns:
        ``bleu_1`` to ``bleu_4`` and ``rouge_l`` in percent, ``cider_d`` from 0 to 10, and the
        ``scores``, each with ``..._low`` and ``..._high``; ``captions``, ``references`` (their
        numbers), ``distinct`` (different captions among the predictions: few of many mean that the
        model says the same of everything), ``tokeniser``.

    Raises:
        DataError: lists of different lengths, no caption, or one without a reference.
    """
    said = [caption_words(one) for one in predictions]
    written = [[caption_words(one) for one in several] for several in _lists(references)]
    scores = dict(scores or {})
    _check_lengths(len(said), {"groups": groups, **{f"scores {k!r}": v for k, v in scores.items()}})
    columns = np.column_stack(
        [
            bleu_statistics(said, written),
            100 * rouge_l(said, written),
            cider_d(said, written, frequencies),
            *scores.values(),
        ]
    ).astype(np.float64)
    names = [*(f"bleu_{n}" for n in ORDERS), "rouge_l", "cider_d", *scores]
    every = np.append(columns.sum(0), len(columns))[None]
    result: dict[str, Any] = dict(zip(names, _figures(every)[0].tolist(), strict=True))
    labels = np.arange(len(said)) if groups is None else np.array([str(one) for one in groups])
    _, cluster = np.unique(labels, return_inverse=True)
    if bootstrap and cluster.max() > 0:  # one picture has no spread
        totals = bootstrap_totals(columns, cluster, replicates=bootstrap, seed=seed)
        ends = np.quantile(_figures(totals), [0.025, 0.975], axis=0)
        for name, low, high in zip(names, *ends.tolist(), strict=True):
            result[f"{name}_low"], result[f"{name}_high"] = low, high
    return result | {
        "captions": len(said),
        "references": sum(map(len, written)),
        "distinct": len(set(map(tuple, said))),
        "tokeniser": TOKENISER,
    }


def bleu_statistics(
    predictions: Sequence[Words], references: Sequence[Sequence[Words]]
) -> Int64[np.ndarray, "n 10"]:
    """What `bleu` needs of each caption; it is additive, so that any part of a corpus has a BLEU.

    Columns: for n = 1..4 the n-grams that are in a reference too, each counted as often at most as
    in the reference with most of it; for n = 1..4 the n-grams; the words; and the words of the
    reference whose length is closest (the shorter of two).

    Raises:
        DataError: see `evaluate_captions`.
    """
    rows = []
    for said, written in _pairs(predictions, references):
        matches, possible = [], []
        for n in ORDERS:
            grams = _grams(said, n)
            most: Counter[Gram] = Counter()
            for one in written:
                most |= _grams(one, n)
            matches.append((grams & most).total())
            possible.append(grams.total())
        lengths = [len(one) for one in written]
        closest = min(lengths, key=lambda length: (abs(length - len(said)), length))
        rows.append([*matches, *possible, len(said), closest])
    return np.array(rows, dtype=np.int64)


def bleu(totals: Shaped[np.ndarray, "*R 10"]) -> Float64[np.ndarray, "*R 4"]:
    """BLEU-1 to BLEU-4 of a corpus, 0 to 1, without smoothing (Papineni et al. 2002, section 2.3).

    Args:
        totals: sums of the rows of `bleu_statistics`.
    """
    matches, possible = totals[..., :4].astype(np.float64), totals[..., 4:8]
    said, closest = totals[..., 8:9], totals[..., 9:10]
    with np.errstate(divide="ignore"):
        logs = np.log(matches / np.maximum(possible, 1))  # no match: -inf, and BLEU is 0
    means = np.cumsum(logs, axis=-1) / np.array(ORDERS)
    brevity = np.minimum(0.0, 1 - closest / np.maximum(said, 1))
    return np.exp(means + brevity)


def rouge_l(
    predictions: Sequence[Words], references: Sequence[Sequence[Words]]
) -> Float64[np.ndarray, " n"]:
    """ROUGE-L of each caption, 0 to 1 (Lin 2004, section 3), as COCO's evaluation has it.

    With l the length of the longest common subsequence, P the largest l / words of the caption and
    R the largest l / words of the reference, each over the references, the score is
    (1 + 1.2^2) P R / (R + 1.2^2 P).

    Raises:
        DataError: see `evaluate_captions`.
    """
    scores = []
    for said, written in _pairs(predictions, references):
        common = [_longest_common(said, one) for one in written]
        precision = max(common) / max(1, len(said))
        recall = max(n / max(1, len(one)) for n, one in zip(common, written, strict=True))
        below = recall + _BETA**2 * precision
        scores.append((1 + _BETA**2) * precision * recall / below if below else 0.0)
    return np.array(scores, dtype=np.float64)


@dataclass(frozen=True)
class DocumentFrequencies:
    """In the references of how many pictures each n-gram is.

    Attributes:
        counts: pictures by n-gram, for n-grams of 1 to 4 words.
        pictures: all pictures.
    """

    counts: Mapping[Gram, int]
    pictures: int

    @classmethod
    def of(cls, references: Sequence[Sequence[Words]]) -> DocumentFrequencies:
        """Counted over lists of references, one list a picture."""
        counts: Counter[Gram] = Counter()
        for written in references:
            counts.update({gram for one in written for n in ORDERS for gram in _grams(one, n)})
        return cls(counts, len(references))

    def weight(self, gram: Gram) -> float:
        """How much an n-gram tells: 0 if it is said of all pictures."""
        return math.log(max(1, self.pictures)) - math.log(max(1, self.counts.get(gram, 0)))


def cider_d(
    predictions: Sequence[Words],
    references: Sequence[Sequence[Words]],
    frequencies: DocumentFrequencies | None = None,
) -> Float64[np.ndarray, " n"]:
    """CIDEr-D of each caption, 0 to 10 (Vedantam et al. 2015, section 5).

    With c and r the vectors of a caption's and a reference's n-grams, entries count x
    log(pictures / pictures with the n-gram), and d the difference of their lengths in words:
    10 mean over n = 1..4 and references of  min(c, r) . r / (|c| |r|) x exp(-d^2 / (2 x 6^2)).

    A caption equal to its one reference gets 10 if that has four words at least, and n-grams of
    each length that are not said of all pictures. One picture alone always gets 0.

    Raises:
        DataError: see `evaluate_captions`.
    """
    known = DocumentFrequencies.of(references) if frequencies is None else frequencies
    scores = []
    for said, written in _pairs(predictions, references):
        caption = [_Vector.of(said, n, known) for n in ORDERS]
        total = 0.0
        for one in written:
            closeness = math.exp(-((len(said) - len(one)) ** 2) / (2 * _SIGMA**2))
            total += closeness * sum(v.similarity(_Vector.of(one, v.n, known)) for v in caption)
        scores.append(10 * total / (len(ORDERS) * len(written)))
    return np.array(scores, dtype=np.float64)


@dataclass(frozen=True)
class _Vector:
    """Weighted counts of a caption's n-grams of one length."""

    n: int
    entries: Mapping[Gram, float]
    norm: float

    @classmethod
    def of(cls, words: Words, n: int, known: DocumentFrequencies) -> _Vector:
        entries = {gram: count * known.weight(gram) for gram, count in _grams(words, n).items()}
        return cls(n, entries, math.hypot(*entries.values()))

    def similarity(self, reference: _Vector) -> float:
        """Clipped cosine: what is said more often than in the reference earns nothing more."""
        if not self.norm or not reference.norm:
            return 0.0
        theirs = reference.entries
        shared = (gram for gram in self.entries if gram in theirs)
        product = sum(min(self.entries[gram], theirs[gram]) * theirs[gram] for gram in shared)
        return product / (self.norm * reference.norm)


def _grams(words: Words, n: int) -> Counter[Gram]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _longest_common(one: Words, other: Words) -> int:
    """Length of the longest common subsequence, a row of the table at a time in one integer.

    A zero bit i of ``row`` says that word i of ``one`` lengthens it (Hyyro 2004).
    """
    places: dict[str, int] = {}
    for i, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << i
    row = every = (1 << len(one)) - 1
    for word in other:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & every
    return len(one) - row.bit_count()


def _figures(totals: Float[np.ndarray, "R C"]) -> Float64[np.ndarray, "R F"]:
    """BLEU in percent and the means of the other columns; the last column counts captions."""
    return np.concatenate([100 * bleu(totals[:, :10]), totals[:, 10:-1] / totals[:, -1:]], axis=1)


def _pairs(
    predictions: Sequence[Words], references: Sequence[Sequence[Words]]
) -> Iterator[tuple[Words, Sequence[Words]]]:
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} captions, but {len(references)} lists of references")
    if not len(predictions):
        raise DataError("there is no caption to judge")
    for number, (said, written) in enumerate(zip(predictions, references, strict=True), 1):
        if not written:
            raise DataError(f"caption {number} has no reference: leave it out")
        yield said, written


def _lists(references: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    for number, several in enumerate(references, 1):
        if isinstance(several, str):
            raise DataError(
                f"the references of caption {number} are one text: give a list of texts"
            )
    return references


def _check_lengths(captions: int, given: Mapping[str, Any]) -> None:
    for name, values in given.items():
        if values is not None and len(values) != captions:
            raise DataError(f"{captions} captions, but {len(values)} {name}")
