"""Searches worth looking at: a few typical ones, and the worst mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from plait.core.media import MediaRef
from plait.evaluation.evaluate.gallery import Gallery
from plait.evaluation.metrics.retrieval import ranks_of


@dataclass(frozen=True)
class Found:
    """One result of a search.

    Attributes:
        id: of the sample.
        text: its words.
        score: cosine to the query, less a correction for hubs where the gallery has one.
        rank: from 1.
        right: whether it answers the query.
        picture: where its bytes are, or None for a found text.
    """

    id: str
    text: str
    score: float
    rank: int
    right: bool
    picture: MediaRef | None = None


@dataclass(frozen=True)
class Search:
    """A query with its best results.

    Attributes:
        query: the words asked, or the words of the picture asked with.
        results: best first.
        picture: the picture asked with; None when words were asked.
        answer: the best right result, which may stand far below ``results``.
    """

    query: str
    results: tuple[Found, ...]
    answer: Found
    picture: MediaRef | None = None


def text_searches(gallery: Gallery, *, count: int = 8, k: int = 5, seed: int = 0) -> list[Search]:
    """Texts drawn at random, from different pictures and all languages in turn."""
    random = np.random.default_rng(seed)
    by_language: dict[str, list[int]] = {}
    for column in random.permutation(len(gallery.text)).tolist():
        by_language.setdefault(gallery.languages[column] or "", []).append(column)
    chosen: list[int] = []
    shown: set[int] = set()
    queues = [by_language[name] for name in sorted(by_language)]
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue:
                column = queue.pop()
                asked = int(gallery.answers.label[column])
                if asked not in shown:
                    shown.add(asked)
                    chosen.append(column)
                    break
    return [text_search(gallery, column, k=k) for column in chosen[:count]]


def worst_mistakes(gallery: Gallery, *, count: int = 6, k: int = 4) -> list[Search]:
    """The texts whose picture comes last, one a picture; fewer when fewer are wrong."""
    ranks = ranks_of(
        gallery.image, gallery.text, gallery.answers, image_bias=gallery.image_bias
    ).text_to_image
    chosen: list[int] = []
    shown: set[int] = set()
    for column in np.argsort(-ranks, kind="stable").tolist():
        asked = int(gallery.answers.label[column])
        if len(chosen) == count or ranks[column] == 1:
            break
        if asked not in shown:
            shown.add(asked)
            chosen.append(column)
    return [text_search(gallery, column, k=k) for column in chosen]


def text_search(gallery: Gallery, column: int, *, k: int) -> Search:
    """The pictures nearest to one text of the gallery."""
    scores = gallery.image.astype(np.float64) @ gallery.text[column].astype(np.float64)
    if gallery.image_bias is not None:
        scores -= gallery.image_bias
    right = ~gallery.answers.wrong(slice(None), np.array([column]))[:, 0]
    order = _order(scores, right)

    def found(place: int) -> Found:
        row = int(order[place])
        words = gallery.words_of(row)
        return Found(
            gallery.ids[row],
            words,
            float(scores[row]),
            place + 1,
            bool(right[row]),
            gallery.pictures[row],
        )

    answer = found(int(np.flatnonzero(right[order])[0]))
    results = tuple(found(place) for place in range(min(k, len(order))))
    return Search(gallery.texts[column], results, answer)


def picture_search(gallery: Gallery, row: int, *, k: int) -> Search:
    """The texts nearest to one picture of the gallery that has a text."""
    scores = gallery.text.astype(np.float64) @ gallery.image[row].astype(np.float64)
    if gallery.text_bias is not None:
        scores -= gallery.text_bias
    right = ~gallery.answers.wrong(np.array([row]), slice(None))[0]
    order = _order(scores, right)

    def found(place: int) -> Found:
        column = int(order[place])
        owner = int(gallery.text_owner[column])
        return Found(
            gallery.ids[owner],
            gallery.texts[column],
            float(scores[column]),
            place + 1,
            bool(right[column]),
        )

    answer = found(int(np.flatnonzero(right[order])[0]))
    results = tuple(found(place) for place in range(min(k, len(order))))
    return Search(gallery.words_of(row), results, answer, gallery.pictures[row])


def picture_searches(
    gallery: Gallery, *, count: int = 4, k: int = 4, seed: int = 0
) -> list[Search]:
    """Pictures drawn at random among those with a text, each with the texts it finds."""
    asked = np.unique(gallery.text_owner)
    random = np.random.default_rng(seed)
    rows = random.choice(asked, size=min(count, len(asked)), replace=False)
    return [picture_search(gallery, int(row), k=k) for row in rows]


def _order(scores: np.ndarray, right: np.ndarray) -> Int[np.ndarray, " candidates"]:
    """Best first; among equals the wrong ones, as in the metrics."""
    return np.lexsort((right, -scores))
