"""Intervals over what is independent, whole pictures with all their texts, and by their seed."""

from __future__ import annotations

import numpy as np

from plait.evaluation.metrics.retrieval import retrieval

TEXTS = 50  # of each of four pictures


def found(**options: object) -> dict[str, dict[str, float]]:
    """Two pictures whose texts all find them, and two whose texts all find the other one."""
    image = np.eye(4)
    owner = np.repeat(np.arange(4), TEXTS)
    points = np.array([0, 1, 3, 2])
    return retrieval(image, image[points[owner]], owner, **options)


def test_texts_of_one_picture_are_drawn_together() -> None:
    """Of four pictures two are right: both ends are reached with probability 1/16 each, more than
    the 2.5% that the interval leaves out. Two hundred independent texts would give 43 to 57."""
    way = found(ks=(1,))["text_to_image"]
    assert way["R@1"] == 50
    assert (way["R@1_low"], way["R@1_high"]) == (0, 100)


def test_pictures_of_one_group_are_drawn_together() -> None:
    """Forty pictures in four groups of ten, in two of which every picture finds a right text."""
    image, group = np.eye(4)[np.repeat(np.arange(4), 10)], np.repeat(np.arange(4), 10)
    text = np.eye(4)[[0, 1, 3, 2]]
    ways = retrieval(image, text, np.array([0, 10, 20, 30]), image_groups=group, ks=(1,))
    for way in ways.values():
        assert way["R@1"] == 50
        assert (way["R@1_low"], way["R@1_high"]) == (0, 100)


def test_the_seed_decides_both_directions() -> None:
    random = np.random.default_rng(0)
    image = random.normal(size=(41, 5))
    text = image + random.normal(size=(41, 5))
    image, text = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (image, text))

    def ends(seed: int) -> list[list[float]]:
        ways = retrieval(image, text, np.arange(41), ks=(1, 5), bootstrap=37, seed=seed)
        return [[v for k, v in way.items() if k.endswith(("low", "high"))] for way in ways.values()]

    assert ends(0) == ends(0)
    for other in range(1, 4):
        for mine, theirs in zip(ends(0), ends(other), strict=True):
            assert mine != theirs
