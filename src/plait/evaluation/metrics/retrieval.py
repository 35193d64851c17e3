"""Recall@k and median rank, many texts to many images, in both directions.

Legend: n images, m texts, D features, k cut-off, R bootstrap replicates.

A score is the product of two unit rows, that is their cosine. Ranks are pessimistic: a wrong
candidate that ties with the best right one counts as ranked before it, and so does one whose
score is not a number. Scores closer than `TIE` are ties, so that equal vectors tie whatever the
order in which a matrix product adds up. Scores exist in tiles only, never as one n x m matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from plait.core.errors import DataError
from plait.data.base.equal_texts import RightAnswers

TIE = 1e-9  # float64 products of unit rows differ by some 1e-16; real cosines by far more

ScoreRows = Float[np.ndarray, "rows D"]


@dataclass(frozen=True)
class Ranks:
    """Rank of the best right candidate for every query, from 1; 0 where a query has none.

    Attributes:
        text_to_image: (m,) among the n images.
        image_to_text: (n,) among the m texts; 0 for an image without any text.
    """

    text_to_image: Int[np.ndarray, " m"]
    image_to_text: Int[np.ndarray, " n"]


def retrieval(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    text_owner: Int[np.ndarray, " m"],
    *,
    image_groups: Shaped[np.ndarray, " n"] | None = None,
    text_words: Int[np.ndarray, " m"] | None = None,
    image_bias: Float[np.ndarray, " n"] | None = None,
    text_bias: Float[np.ndarray, " m"] | None = None,
    ks: Sequence[int] = (1, 5, 10),
    bootstrap: int = 1000,
    seed: int = 0,
    chunk: int = 2048,
) -> dict[str, Any]:
    """Recall@k in percent with 95% intervals, and median ranks, in both directions.

    Text to image: is an image of the text among the top k? Image to text: is any of the image's
    texts among the top k of all texts? Images without a text are candidates, but ask nothing.

    Args:
        image: unit rows.
        text: unit rows.
        text_owner: for each text, the row of its image.
        image_groups: images with the same value show the same thing, so that each is a right
            answer for the others' texts. None: each image stands for itself.
        text_words: texts with the same value read the same: each is a right answer for the images
            of all of them, and these for it. None: each text is its own image's alone.
        image_bias: taken from the scores of images that texts ask for (see `plait.models.base.hubs`).
        text_bias: taken from the scores of texts that images ask for.
        ks: cut-offs.
        bootstrap: replicates of the percentile interval, drawn over images (over groups when
            given: their images are not independent; a text that several groups have is drawn with
            all that read the same). 0 leaves the intervals out.
        seed: of the bootstrap.
        chunk: rows and columns of the largest tile of scores in memory.

    Returns:
        ``{"text_to_image": {"R@1", "R@1_low", "R@1_high", ..., "median_rank", "queries",
        "distinct", "right", "candidates"}, "image_to_text": {...}}``. ``distinct``: how many
        queries differ (texts that read the same, or pictures of one group, are one); ``right``:
        right answers of a query, in the mean.

    Raises:
        DataError: shapes or owners that do not fit together, or nothing to ask.
    """
    groups = _checked_groups(image, text, text_owner, image_groups)
    answers = RightAnswers.of(groups, text_owner, _checked_words(text, text_words))
    return _retrieval(image, text, answers, image_bias, text_bias, ks, bootstrap, seed, chunk)


def _retrieval(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    answers: RightAnswers,
    image_bias: Float[np.ndarray, " n"] | None,
    text_bias: Float[np.ndarray, " m"] | None,
    ks: Sequence[int] = (1, 5, 10),
    bootstrap: int = 1000,
    seed: int = 0,
    chunk: int = 2048,
) -> dict[str, Any]:
    ranks = ranks_of(image, text, answers, image_bias=image_bias, text_bias=text_bias, chunk=chunk)
    asked = ranks.image_to_text > 0
    by_image = ranks.image_to_text[asked], answers.group[asked]
    result: dict[str, Any] = {
        "text_to_image": _summary(ranks.text_to_image, answers.label, ks, bootstrap, seed),
        "image_to_text": _summary(*by_image, ks, bootstrap, seed + 1),
    }
    pairs = answers.right_count()
    for figures, candidates in zip(result.values(), (image, text), strict=True):
        figures["right"] = pairs / figures["queries"]
        figures["candidates"] = len(candidates)
    return result


def mean_recall(figures: Mapping[str, Mapping[str, Any]]) -> float:
    """Mean over both directions and all cut-offs of a result of `retrieval`, in percent."""
    recalls = [
        value
        for direction in figures.values()
        for name, value in direction.items()
        if name.startswith("R@") and not name.endswith(("_low", "_high"))
    ]
    return float(np.mean(recalls))


def retrieval_by_language(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    text_owner: Int[np.ndarray, " m"],
    languages: Sequence[str | None],
    *,
    image_groups: Shaped[np.ndarray, " n"] | None = None,
    text_words: Int[np.ndarray, " m"] | None = None,
    image_bias: Float[np.ndarray, " n"] | None = None,
    text_bias: Float[np.ndarray, " m"] | None = None,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """`retrieval` for each language alone: its texts against all images, and back.

    Args:
        image: unit rows.
        text: unit rows.
        text_owner: for each text, the row of its image.
        languages: for each text its language; texts with None belong to no subset.
        image_groups: as for `retrieval`.
        text_words: as for `retrieval`; who has which text is the same in all subsets.
        image_bias: as for `retrieval`.
        text_bias: as for `retrieval`.
        options: as for `retrieval`.
    """
    if len(languages) != len(text):
        raise DataError(f"{len(text)} texts, but {len(languages)} languages")
    names = sorted({name for name in languages if name is not None})
    array = np.array([name or "" for name in languages], dtype=object)
    groups = _checked_groups(image, text, text_owner, image_groups)
    answers = RightAnswers.of(groups, text_owner, _checked_words(text, text_words))
    found = {}
    for name in names:
        own = array == name
        bias = None if text_bias is None else text_bias[own]
        found[name] = _retrieval(image, text[own], answers.among(own), image_bias, bias, **options)
    return found


def retrieval_ranks(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    text_owner: Int[np.ndarray, " m"],
    *,
    image_groups: Shaped[np.ndarray, " n"] | None = None,
    text_words: Int[np.ndarray, " m"] | None = None,
    **options: Any,
) -> Ranks:
    """Pessimistic ranks of both directions; arguments and errors are those of `retrieval`."""
    groups = _checked_groups(image, text, text_owner, image_groups)
    answers = RightAnswers.of(groups, text_owner, _checked_words(text, text_words))
    return ranks_of(image, text, answers, **options)


def ranks_of(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    answers: RightAnswers,
    *,
    image_bias: Float[np.ndarray, " n"] | None = None,
    text_bias: Float[np.ndarray, " m"] | None = None,
    chunk: int = 2048,
) -> Ranks:
    """Pessimistic ranks of both directions from one sweep over tiles of scores."""
    _check_bias(image_bias, len(image), "images")
    _check_bias(text_bias, len(text), "texts")
    biases = image_bias, text_bias
    best_image, best_text = _best_right(image, text, answers, *biases, chunk)
    before_text = np.zeros(len(text), dtype=np.int64)
    before_image = np.zeros(len(image), dtype=np.int64)
    for rows in _tiles(len(image), chunk):
        left = image[rows].astype(np.float64)
        for columns in _tiles(len(text), chunk):
            scores = left @ text[columns].astype(np.float64).T
            wrong = answers.wrong(rows, columns)
            # `not below` rather than `at least`: NaN must never look like a good rank
            of_texts, of_images = _less(scores, *biases, rows, columns)
            before_text[columns] += (wrong & ~(of_texts < best_text[columns] - TIE)).sum(axis=0)
            before_image[rows] += (wrong & ~(of_images < best_image[rows, None] - TIE)).sum(axis=1)
    return Ranks(before_text + 1, np.where(answers.asked(), before_image + 1, 0))


def recall_at(ranks: Int[np.ndarray, " q"], k: int) -> float:
    """Percentage of queries whose best right answer is among the first ``k``."""
    return float(100 * np.count_nonzero(ranks <= k) / len(ranks))


def _tiles(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _best_right(
    image: ScoreRows,
    text: Float[np.ndarray, "texts D"],
    answers: RightAnswers,
    image_bias: Float[np.ndarray, " rows"] | None,
    text_bias: Float[np.ndarray, " texts"] | None,
    chunk: int,
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " texts"]]:
    """Best score among the right candidates: of each image, and of each text."""
    best_image = np.full(len(image), -np.inf)
    best_text = np.full(len(text), -np.inf)
    for every_row, every_column in answers.blocks():
        for part in _tiles(len(every_row), chunk):
            rows = every_row[part]
            left = image[rows].astype(np.float64)
            for across in _tiles(len(every_column), chunk):
                columns = every_column[across]
                scores = left @ text[columns].astype(np.float64).T
                of_texts, of_images = _less(scores, image_bias, text_bias, rows, columns)
                # NaN stays
                best_image[rows] = np.maximum(best_image[rows], of_images.max(axis=1))
                best_text[columns] = np.maximum(best_text[columns], of_texts.max(axis=0))
    return best_image, best_text


def _summary(
    ranks: Int[np.ndarray, " q"],
    cluster: Int[np.ndarray, " q"],
    ks: Sequence[int],
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    hits = np.stack([ranks <= k for k in ks], axis=1).astype(np.float64)
    result: dict[str, Any] = {}
    interval = bootstrap_interval(hits, cluster, replicates=bootstrap, seed=seed)
    for column, k in enumerate(ks):
        result[f"R@{k}"] = recall_at(ranks, k)
        if interval is not None:
            result[f"R@{k}_low"] = float(100 * interval[0][column])
            result[f"R@{k}_high"] = float(100 * interval[1][column])
    result["median_rank"] = float(np.median(ranks))
    result["queries"] = len(ranks)
    result["distinct"] = len(np.unique(cluster))
    return result


def bootstrap_interval(
    values: Float[np.ndarray, "q C"],
    cluster: Int[np.ndarray, " q"],
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]] | None:
    """Percentile interval of the column means when whole clusters are drawn with replacement.

    A replicate's mean is the sum over its clusters divided by their number of rows, so clusters
    weigh by their size, as in the plain mean (Davison and Hinkley, Bootstrap Methods, 1997, 3.8).

    Returns:
        Lower and upper ends, or None when ``replicates`` is 0 or one cluster is all there is.
    """
    if replicates == 0 or len(np.unique(cluster)) < 2:
        return None
    totals = bootstrap_totals(values, cluster, replicates=replicates, seed=seed)
    means = totals[:, :-1] / totals[:, -1:]
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def bootstrap_totals(
    values: Float[np.ndarray, "q C"],
    cluster: Int[np.ndarray, " q"],
    *,
    replicates: int,
    seed: int = 0,
) -> Float[np.ndarray, "R C+1"]:
    """Column sums of each replicate when whole clusters are drawn with replacement.

    Returns:
        (replicates, C + 1) sums; the last column is the number of rows drawn.
    """
    _, number = np.unique(cluster, return_inverse=True)
    size = int(number.max()) + 1
    columns = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    sums = np.stack([np.bincount(number, column, minlength=size) for column in columns.T], axis=1)
    random = np.random.default_rng(seed)
    totals = []
    block = max(1, 4_000_000 // size)  # replicates at a time: 32 MB of drawn numbers
    for part in _tiles(replicates, block):
        count = part.stop - part.start
        drawn = random.integers(size, size=(count, size))
        drawn += np.arange(count)[:, None] * size
        weights = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        totals.append(weights @ sums)
    return np.concatenate(totals)


def _less(
    scores: Float[np.ndarray, "r c"],
    image_bias: Float[np.ndarray, " n"] | None,
    text_bias: Float[np.ndarray, " m"] | None,
    rows: slice | Int[np.ndarray, " r"],
    columns: slice | Int[np.ndarray, " c"],
) -> tuple[Float[np.ndarray, "r c"], Float[np.ndarray, "r c"]]:
    """The scores that texts rank images by, and those that images rank texts by."""
    of_texts = scores if image_bias is None else scores - image_bias[rows, None]
    of_images = scores if text_bias is None else scores - text_bias[columns]
    return of_texts, of_images


def _check_bias(bias: Float[np.ndarray, " given"] | None, count: int, what: str) -> None:
    if bias is not None and len(bias) != count:
        raise DataError(f"{count} {what}, but {len(bias)} corrections of their scores")


def _checked_groups(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    text_owner: Int[np.ndarray, " m"],
    image_groups: Shaped[np.ndarray, " n"] | None,
) -> Shaped[np.ndarray, " n"]:
    if not len(image) or not len(text):
        raise DataError(
            f"retrieval needs images and texts, but got {len(image)} images and {len(text)} texts"
        )
    if image.shape[1] != text.shape[1]:
        raise DataError(f"images have {image.shape[1]} features, texts {text.shape[1]}")
    if len(text_owner) != len(text):
        raise DataError(f"{len(text)} texts, but {len(text_owner)} owners")
    if text_owner.min() < 0 or text_owner.max() >= len(image):
        raise DataError(
            f"text_owner must lie in 0 to {len(image) - 1}, but reaches from "
            f"{text_owner.min()} to {text_owner.max()}"
        )
    if image_groups is None:
        return np.arange(len(image))
    if len(image_groups) != len(image):
        raise DataError(f"{len(image)} images, but {len(image_groups)} groups")
    return image_groups


def _checked_words(
    text: Float[np.ndarray, "m D"], text_words: Int[np.ndarray, " m"] | None
) -> Int[np.ndarray, " m"] | None:
    if text_words is not None and len(text_words) != len(text):
        raise DataError(f"{len(text)} texts, but {len(text_words)} numbers of what they read")
    return text_words
