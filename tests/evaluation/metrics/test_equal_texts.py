"""Retrieval where texts repeat, against brute force, and class folders as classification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from plait.evaluation.evaluate.evaluate import evaluate_gallery
from plait.evaluation.evaluate.gallery import Gallery
from plait.evaluation.metrics.geometry import pair_cosines
from plait.evaluation.metrics.retrieval import (
    retrieval,
    retrieval_by_language,
    retrieval_ranks,
)
from plait.evaluation.report.examples import picture_search, text_search


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def brute_rank(scores: np.ndarray, right: np.ndarray) -> int:
    return 1 + int((scores[~right] >= scores[right].max() - 1e-9).sum()) if right.any() else 0


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_ranks_equal_brute_force(chunk: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    image, text = unit(17, 4, seed), unit(40, 4, seed + 100)
    groups, owner = random.integers(12, size=17), random.integers(15, size=40)
    words, bias = random.integers(20, size=40), random.normal(size=40) / 5
    found = retrieval_ranks(
        image, text, owner, image_groups=groups, text_words=words, text_bias=bias, chunk=chunk
    )
    has = {(groups[owner[j]], words[j]) for j in range(40)}
    right = np.array([[(g, w) in has for w in words] for g in groups])
    scores = image @ text.T
    for j in range(40):
        assert found.text_to_image[j] == brute_rank(scores[:, j], right[:, j])
    for i in range(17):
        assert found.image_to_text[i] == brute_rank((scores - bias)[i], right[i])


def test_class_folders_agree_with_classification() -> None:
    classes = unit(3, 8, 0)
    label = np.arange(30) % 3
    image = classes[label] + 1.3 * unit(30, 8, 1)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    right = ((image @ classes.T).argmax(axis=1) == label).mean()
    assert 0.5 < right < 1
    found = retrieval(image, classes[label], np.arange(30), text_words=label, bootstrap=100)
    assert found["image_to_text"]["R@1"] == pytest.approx(100 * right)
    ask = found["text_to_image"]
    assert ask["queries"] == 30 and ask["distinct"] == 3 and ask["right"] == 10
    apart = retrieval(image, classes[label], np.arange(30), bootstrap=0)
    assert apart["image_to_text"]["R@1"] < 50 and apart["text_to_image"]["right"] == 1


def test_who_has_which_text_is_the_same_in_all_languages() -> None:
    # "taxi" in English of picture 0, in German of picture 1, whose English text is another
    image = np.eye(3)
    text = np.array([[0, 1.0, 0], [0, 0, 1.0], [0, 1.0, 0]])
    words, owner = np.array([0, 1, 0]), np.array([0, 1, 1])
    found = retrieval_by_language(
        image, text, owner, ["en", "en", "de"], text_words=words, ks=(1,), bootstrap=0
    )
    # "taxi" finds picture 1; "cab" lies at picture 2
    assert found["en"]["text_to_image"]["R@1"] == 50
    alone = retrieval(image, text[:2], owner[:2], text_words=words[:2], ks=(1,), bootstrap=0)
    assert alone["text_to_image"]["R@1"] == 0


def test_all_texts_the_same_leaves_nothing_wrong() -> None:
    image, text = unit(6, 4, 2), unit(6, 4, 3)
    found = retrieval(image, text, np.arange(6), text_words=np.zeros(6, int), bootstrap=50)
    assert found["text_to_image"]["R@1"] == found["image_to_text"]["R@1"] == 100
    pairs = pair_cosines(image, text, np.arange(6), text_words=np.zeros(6, int))
    assert pairs["random"] is None


def test_searches_mark_every_right_answer(gallery: Gallery) -> None:
    words = np.arange(22)
    words[8] = words[0]  # picture 4 has the first text of picture 0
    shared = replace(gallery, text_words=words)
    found = text_search(shared, 0, k=11)
    assert {hit.id for hit in found.results if hit.right} == {"s0", "s4"}
    told = picture_search(shared, 4, k=22)
    right = {hit.text for hit in told.results if hit.right}
    assert right == {gallery.texts[0], gallery.texts[8], gallery.texts[9]}
    figures = evaluate_gallery(shared, bootstrap=0)["retrieval"]["text_to_image"]
    assert figures["queries"] == 22 and figures["candidates"] == 11
