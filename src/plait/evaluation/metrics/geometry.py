"""The shape of the shared space: gap, alignment, uniformity, effective rank, cosines of pairs.

Legend: n images, m texts, D features. All rows are unit vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from plait.data.base.equal_texts import RightAnswers

Rows = Float[np.ndarray, "rows D"]

BLOCK = 8192  # pairs handled at a time, so that memory stays bounded


def modality_gap(image: Float[np.ndarray, "n D"], text: Float[np.ndarray, "m D"]) -> float:
    """Distance between the mean image and the mean text (Liang et al. 2022); 0 to 2."""
    return float(np.linalg.norm(image.mean(axis=0) - text.mean(axis=0)))


def alignment(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    text_owner: Int[np.ndarray, " m"],
) -> float:
    """Mean squared distance of true pairs (Wang and Isola 2020, exponent 2); 0 to 4, low is good."""
    total = 0.0
    for start in range(0, len(text), BLOCK):
        part = slice(start, start + BLOCK)
        total += ((image[text_owner[part]].astype(np.float64) - text[part]) ** 2).sum()
    return float(total / len(text))


def uniformity(rows: Rows, *, limit: int = 10_000, seed: int = 0, chunk: int = 1024) -> float:
    """Log of the mean of exp(-2 squared distance) over pairs of rows (Wang and Isola 2020).

    0 when all rows are one point; on a sphere of D dimensions the best possible value tends to -4.

    Args:
        rows: unit rows, at least two.
        limit: with more rows than this, that many drawn at random stand for all.
        seed: of the draw.
        chunk: rows compared at a time.
    """
    if len(rows) > limit:
        rows = rows[np.random.default_rng(seed).choice(len(rows), limit, replace=False)]
    values = rows.astype(np.float64)
    squares = (values**2).sum(axis=1)
    total = 0.0
    for start in range(0, len(values), chunk):
        part = slice(start, start + chunk)
        distance = squares[part, None] + squares[None] - 2 * values[part] @ values.T
        total += np.exp(-2 * np.maximum(distance, 0)).sum()
    pairs = len(values) * (len(values) - 1)
    return float(np.log((total - len(values)) / pairs))  # a row is no pair of itself


def rankme(rows: Rows) -> float:
    """RankMe (Garrido et al. 2023): exp of the entropy of the normalised singular values, plus 1e-7.

    Between 1 (all rows on one line through the origin) and min(rows, D).
    """
    values = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
    share = values / values.sum() + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def pair_cosines(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    text_owner: Int[np.ndarray, " m"],
    *,
    image_groups: Shaped[np.ndarray, " n"] | None = None,
    text_words: Int[np.ndarray, " m"] | None = None,
    bins: int = 50,
    draws: int = 100_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Cosines of true pairs beside those of pairs drawn at random from what doesn't belong together.

    Args:
        image: unit rows.
        text: unit rows.
        text_owner: for each text, the row of its image.
        image_groups: images with the same value show the same thing.
        text_words: texts with the same value read the same.
        bins: equal bins of the histogram, from -1 to 1.
        draws: random pairs (fewer remain after true ones are thrown out).
        seed: of the draw.

    Returns:
        ``true`` and ``random``, each with ``mean``, ``std``, ``p05``, ``p50``, ``p95``, ``pairs`` and
        ``histogram`` (share of pairs per bin); and ``separation``: the probability that a true pair
        has a higher cosine than a random one (the area under the ROC curve, ties count half).
        ``random`` and ``separation`` are None when no two things differ.
    """
    groups = np.arange(len(image)) if image_groups is None else image_groups
    random = np.random.default_rng(seed)
    left = random.integers(len(image), size=draws)
    right = random.integers(len(text), size=draws)
    wrong = ~RightAnswers.of(groups, text_owner, text_words).right_pairs(left, right)
    true = _cosines(image, text, text_owner, np.arange(len(text)))
    false = _cosines(image, text, left[wrong], right[wrong])
    return {
        "true": _distribution(true, bins),
        "random": _distribution(false, bins) if len(false) else None,
        "separation": _area_under_roc(true, false) if len(false) else None,
    }


def _cosines(
    image: Rows,
    text: Float[np.ndarray, "texts D"],
    left: Int[np.ndarray, " pairs"],
    right: Int[np.ndarray, " pairs"],
) -> Float[np.ndarray, " pairs"]:
    found = np.empty(len(left))
    for start in range(0, len(left), BLOCK):
        part = slice(start, start + BLOCK)
        rows = image[left[part]].astype(np.float64)
        found[part] = np.einsum("pd,pd->p", rows, text[right[part]])
    return found


def _distribution(cosines: Float[np.ndarray, " pairs"], bins: int) -> dict[str, Any]:
    low, middle, high = np.quantile(cosines, [0.05, 0.5, 0.95])
    counts, _ = np.histogram(np.clip(cosines, -1, 1), bins=bins, range=(-1, 1))
    return {
        "mean": float(cosines.mean()),
        "std": float(cosines.std()),
        "p05": float(low),
        "p50": float(middle),
        "p95": float(high),
        "pairs": len(cosines),
        "histogram": [round(float(share), 6) for share in counts / len(cosines)],
    }


def _area_under_roc(
    positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"]
) -> float:
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * len(ordered)))


def geometry(
    image: Float[np.ndarray, "n D"],
    text: Float[np.ndarray, "m D"],
    text_owner: Int[np.ndarray, " m"],
    *,
    image_groups: Shaped[np.ndarray, " n"] | None = None,
    text_words: Int[np.ndarray, " m"] | None = None,
) -> dict[str, Any]:
    """All of the above as one dictionary (see the functions for meaning and range).

    Uniformity is None for a modality with a single row.
    """
    return {
        "modality_gap": modality_gap(image, text),
        "alignment": alignment(image, text, text_owner),
        "uniformity": {
            "image": uniformity(image) if len(image) > 1 else None,
            "text": uniformity(text) if len(text) > 1 else None,
        },
        "rankme": {"image": rankme(image), "text": rankme(text)},
        "dimensions": int(image.shape[1]),
        "cosines": pair_cosines(
            image, text, text_owner, image_groups=image_groups, text_words=text_words
        ),
    }
