"""Pairs that fit badly, by the embeddings of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from plait.core.errors import DataError
from plait.data.audit.rows import Audited, Finding
from plait.data.base.equal_texts import RightAnswers, text_numbers

NEIGHBOURS = 5
OUTLIER = 3.5


@runtime_checkable
class Vectors(Protocol):
    """What `plait.engines.features.embed_dataset` returns: n samples, m texts, D features.

    Rows of ``image`` (n, D) and ``text`` (m, D) are unit, or zero where there is no picture;
    ``text_owner`` (m,) is the sample of each text, as a row of ``ids``.
    """

    @property
    def ids(self) -> Sequence[str]:
        """Of the n samples."""

    @property
    def image(self) -> np.ndarray:
        """(n, D)."""

    @property
    def text(self) -> np.ndarray:
        """(m, D)."""

    @property
    def text_owner(self) -> np.ndarray:
        """(m,)."""


def margins(
    image: np.ndarray,
    text: np.ndarray,
    owner: np.ndarray,
    groups: np.ndarray,
    chunk: int = 1024,
    *,
    words: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much better each pair fits than what else its picture and its text match.

    The cosine of the pair, minus the mean of two averages: of the text's five best other
    pictures, and of the picture's five best other texts (as in CSLS, Conneau et al. 2018,
    section 2.3: it takes away that some pictures and texts are near to everything).

    Args:
        image: (n, D) unit rows.
        text: (m, D) unit rows.
        owner: (m,) the picture of each text.
        groups: (n,) pictures of one group are no alternatives.
        chunk: texts at a time, for memory.
        words: (m,) texts with equal numbers are no alternatives of one another's pictures.

    Returns:
        (m,) margins, (m,) cosines, (m,) the best other picture of each text.
    """
    count, answers = len(text), RightAnswers.of(groups, owner, words)
    own = np.einsum("md,md->m", text, image[owner])
    best_other = np.zeros(count, np.int64)
    of_text = np.zeros(count)
    k = min(NEIGHBOURS, max(1, len(image) - 1))
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
        scores = text[rows] @ image.T
        scores[~answers.wrong(slice(None), rows).T] = -np.inf
        best_other[rows] = scores.argmax(axis=1)
        of_text[rows] = _mean_of_best(scores, k)
    of_image = np.zeros(len(image))
    k = min(NEIGHBOURS, max(1, count - 1))
    for start in range(0, len(image), chunk):
        rows = slice(start, start + chunk)
        scores = image[rows] @ text.T
        scores[~answers.wrong(rows, slice(None))] = -np.inf
        of_image[rows] = _mean_of_best(scores, k)
    return own - (of_text + of_image[owner]) / 2, own, best_other


def _mean_of_best(scores: np.ndarray, k: int) -> np.ndarray:
    best = -np.sort(-np.partition(scores, scores.shape[1] - k, axis=1)[:, -k:], axis=1)
    valid = np.isfinite(best)
    return np.where(valid, best, 0).sum(axis=1) / np.maximum(valid.sum(axis=1), 1)


def low_outliers(values: np.ndarray, limit: float = OUTLIER) -> np.ndarray:
    """(n,) True where (x - median) / (1.4826 MAD) < -limit (Iglewicz and Hoaglin 1993)."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    if spread == 0:
        spread = 1.2533 * np.mean(np.abs(values - middle)) or np.inf
    return (values - middle) / spread < -limit


def mismatches(audited: Audited, embeddings: Vectors) -> Iterator[Finding]:
    """The pairs whose margin is far below the others', the worst first.

    Raises:
        DataError: the embeddings are of another data set.
    """
    number_of = {sample.id: number for number, sample in enumerate(audited.samples)}
    missing = [id for id in embeddings.ids if id not in number_of]
    if missing:
        raise DataError(f"the embeddings are of another data set: it has no sample {missing[0]!r}")
    names: dict[str, int] = {}
    groups = np.array(
        [
            names.setdefault(audited.samples[number_of[id]].group_key, len(names))
            for id in embeddings.ids
        ]
    )
    owner = np.asarray(embeddings.text_owner)
    present = np.linalg.norm(embeddings.image, axis=1)[owner] > 0
    if present.sum() < 10:
        return  # an outlier needs something to lie out of
    # the n-th text of a sample among the embeddings is the n-th of its texts
    position = np.zeros(len(owner), np.int64)
    seen: dict[int, int] = {}
    for row, one in enumerate(owner.tolist()):
        position[row] = seen.get(one, 0)
        seen[one] = position[row] + 1
    words = text_numbers(
        audited.samples[number_of[embeddings.ids[one]]].texts[nth]
        for one, nth in zip(owner.tolist(), position.tolist(), strict=True)
    )
    margin, cosine, other = margins(embeddings.image, embeddings.text, owner, groups, words=words)
    which = np.flatnonzero(present)[low_outliers(margin[present])]
    for row in which[np.argsort(margin[which])].tolist():
        number = number_of[embeddings.ids[owner[row]]]
        sample, nth = audited.samples[number], int(position[row])
        better = embeddings.ids[other[row]]
        score = float(embeddings.text[row] @ embeddings.image[other[row]])
        detail = (
            f"{sample.texts[nth][:60]!r} fits its picture with {cosine[row]:.2f} "
            f"(median {np.median(cosine[present]):.2f}), and {better!r} with {score:.2f}"
        )
        yield Finding("mismatch", "warning", *audited.places[number][nth], sample.id, detail)
