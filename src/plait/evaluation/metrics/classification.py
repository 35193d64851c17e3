"""Zero-shot classification, Winoground-style choices, calibration. Pure functions of arrays.

Legend: n images, C classes, T prompt templates, D features, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from plait.core.errors import DataError
from plait.evaluation.metrics.retrieval import TIE, bootstrap_interval


def class_vectors(prompts: Float[np.ndarray, "C T D"]) -> Float[np.ndarray, "C D"]:
    """One unit row per class: the mean of its prompts' unit rows, renormalised.

    As in the appendix of CLIP (Radford et al. 2021, section 3.1.4, prompt ensembling).

    Raises:
        DataError: a class whose prompts cancel out, so that it has no direction.
    """
    mean = prompts.mean(axis=1)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    if (norm < 1e-12).any():
        raise DataError(f"the prompts of class {int(norm.argmin())} cancel out to a zero vector")
    return mean / norm


def zero_shot(
    image: Float[np.ndarray, "n D"],
    classes: Float[np.ndarray, "C D"],
    labels: Int[np.ndarray, " n"],
    *,
    names: Sequence[str] | None = None,
    ks: Sequence[int] = (1, 5),
    bootstrap: int = 1000,
    seed: int = 0,
    chunk: int = 8192,
) -> dict[str, Any]:
    """Accuracy of taking the class with the highest cosine, in percent, with 95% intervals.

    Ties count against the model, as in `plait.evaluation.metrics.retrieval`.

    Args:
        image: unit rows.
        classes: unit rows, e.g. of `class_vectors`.
        labels: the true class of each image.
        names: of the classes, for figures of each.
        ks: the true class may be among the first k.
        bootstrap: replicates of the percentile interval over images; 0 leaves it out.
        seed: of the bootstrap.
        chunk: images scored at a time.

    Returns:
        ``top1``, ``top1_low``, ``top1_high``, ..., ``mean_per_class`` (mean over the classes that
        occur of their top-1 accuracy), ``images``, ``classes``; with names ``per_class``: of each
        class that occurs ``images`` and ``top1``.
    """
    if not len(image):
        raise DataError("classification needs at least one image")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(
            f"labels must lie in 0 to {len(classes) - 1}, but reach from "
            f"{labels.min()} to {labels.max()}"
        )
    ranks = np.concatenate(
        [
            _label_ranks(image[start : start + chunk], classes, labels[start : start + chunk])
            for start in range(0, len(image), chunk)
        ]
    )
    hits = np.stack([ranks <= k for k in ks], axis=1).astype(np.float64)
    interval = bootstrap_interval(hits, np.arange(len(hits)), replicates=bootstrap, seed=seed)
    result: dict[str, Any] = {}
    for column, k in enumerate(ks):
        result[f"top{k}"] = float(100 * hits[:, column].mean())
        if interval is not None:
            result[f"top{k}_low"] = float(100 * interval[0][column])
            result[f"top{k}_high"] = float(100 * interval[1][column])
    first = (ranks == 1).astype(np.float64)
    counts = np.bincount(labels, minlength=len(classes))
    right = np.bincount(labels, first, minlength=len(classes))
    result["mean_per_class"] = float(100 * np.mean(right[counts > 0] / counts[counts > 0]))
    result |= {"images": len(image), "classes": len(classes)}
    if names is not None:
        result["per_class"] = {
            names[place]: {
                "images": int(counts[place]),
                "top1": float(100 * right[place] / counts[place]),
            }
            for place in np.flatnonzero(counts).tolist()
        }
    return result


def _label_ranks(
    image: Float[np.ndarray, "n D"],
    classes: Float[np.ndarray, "C D"],
    labels: Int[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    scores = image.astype(np.float64) @ classes.astype(np.float64).T
    own = scores[np.arange(len(labels)), labels][:, None]
    before = ~(scores < own - TIE)
    before[np.arange(len(labels)), labels] = False
    return before.sum(axis=1) + 1


def paired_choice(scores: Float[np.ndarray, "n 2 2"]) -> dict[str, float]:
    """Winoground's text, image and group accuracy, in percent (Thrush et al. 2022, section 4.1).

    Each sample has two captions and two images, whose right pairing is the diagonal. Text score:
    for each image the right caption scores strictly higher; image score: for each caption the right
    image; group score: both.

    Args:
        scores: ``scores[i, caption, image]``.
    """
    right = np.stack([scores[:, 0, 0], scores[:, 1, 1]], axis=1)
    other_caption = np.stack([scores[:, 1, 0], scores[:, 0, 1]], axis=1)
    other_image = np.stack([scores[:, 0, 1], scores[:, 1, 0]], axis=1)
    text = (right > other_caption).all(axis=1)
    image = (right > other_image).all(axis=1)
    return {
        "text": float(100 * text.mean()),
        "image": float(100 * image.mean()),
        "group": float(100 * (text & image).mean()),
    }


def expected_calibration_error(
    probabilities: Float[np.ndarray, "n C"], labels: Int[np.ndarray, " n"], *, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence, 0 to 1.

    Guo et al. 2017, equation 3. Bins are open on the left and closed on the right.
    """
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def brier_score(probabilities: Float[np.ndarray, "n C"], labels: Int[np.ndarray, " n"]) -> float:
    """Mean over images of the squared distance to the one-hot label, 0 (best) to 2 (Brier 1950)."""
    wanted = np.zeros(probabilities.shape)
    wanted[np.arange(len(labels)), labels] = 1
    return float(((probabilities - wanted) ** 2).sum(axis=1).mean())
