"""Figures and searches by scores less a correction, against sorting whole rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from plait.evaluation.evaluate.evaluate import evaluate_gallery
from plait.evaluation.evaluate.gallery import Gallery, corrected
from plait.evaluation.metrics.retrieval import (
    mean_recall,
    retrieval,
    retrieval_by_language,
    retrieval_ranks,
)
from plait.evaluation.report.examples import picture_searches, text_searches, worst_mistakes
from plait.evaluation.report.results import results
from plait.evaluation.report.words import correction_words
from plait.models.base.hubs import HubCorrection


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def brute_rank(scores: list[float], right: set[int]) -> int:
    """Position of the first right candidate when wrong ones come first among equals."""
    order = sorted(range(len(scores)), key=lambda c: (-scores[c], c in right))
    return 1 + min(order.index(c) for c in right)


def correction(seed: int = 0) -> HubCorrection:
    banks = {
        "image": torch.from_numpy(unit(20, 6, seed + 10).astype(np.float32)),
        "text": torch.from_numpy(unit(30, 6, seed + 11).astype(np.float32)),
    }
    return HubCorrection(banks, neighbours=3, strength=1.0)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("grouped", [False, True])
def test_ranks_equal_sorting_every_row_with_ties(chunk: int, grouped: bool) -> None:
    """Small whole numbers, so that many scores are equal to the bit, corrected or not."""
    random = np.random.default_rng(1)
    image = random.integers(-2, 3, size=(23, 3)).astype(np.float64)
    text = random.integers(-2, 3, size=(61, 3)).astype(np.float64)
    owner = np.concatenate([random.permutation(20), random.integers(20, size=41)])
    groups = random.integers(9, size=23) if grouped else np.arange(23)
    image_bias = random.integers(-2, 3, size=23).astype(np.float64)
    text_bias = random.integers(-2, 3, size=61).astype(np.float64)
    found = retrieval_ranks(
        image,
        text,
        owner,
        image_groups=groups,
        image_bias=image_bias,
        text_bias=text_bias,
        chunk=chunk,
    )
    scores = image @ text.T
    for j in range(61):
        right = {i for i in range(23) if groups[i] == groups[owner[j]]}
        assert found.text_to_image[j] == brute_rank(list(scores[:, j] - image_bias), right)
    for i in range(23):
        right = {j for j in range(61) if groups[owner[j]] == groups[i]}
        expected = brute_rank(list(scores[i] - text_bias), right) if right else 0
        assert found.image_to_text[i] == expected


def test_each_correction_has_its_direction() -> None:
    image, text, owner = unit(20, 4, 1), unit(20, 4, 2), np.arange(20)
    plain = retrieval(image, text, owner, bootstrap=0)
    bias = np.linspace(-1, 1, 20)
    images = retrieval(image, text, owner, image_bias=bias, bootstrap=0)
    texts = retrieval(image, text, owner, text_bias=bias, bootstrap=0)
    assert images["image_to_text"] == plain["image_to_text"]
    assert texts["text_to_image"] == plain["text_to_image"]
    assert images["text_to_image"] != plain["text_to_image"]
    assert texts["image_to_text"] != plain["image_to_text"]
    same = retrieval(image, text, owner, image_bias=np.full(20, 0.3), bootstrap=0)
    assert same == plain  # what is taken from all alike changes no order


def test_copies_of_a_hub_still_tie() -> None:
    image = unit(300, 48, 6).astype(np.float32)
    image[1::2] = image[::2]
    hubs = HubCorrection({"text": torch.from_numpy(unit(50, 48, 7).astype(np.float32))})
    bias = hubs.bias("image", image, "text")
    ranks = retrieval_ranks(image, image, np.arange(300), image_bias=bias, chunk=41)
    assert (ranks.text_to_image >= 2).all()


def test_each_language_keeps_the_corrections_of_its_texts() -> None:
    image, text = unit(12, 4, 1), unit(24, 4, 2)
    owner, bias = np.arange(24) % 12, np.linspace(0, 1, 24)
    found = retrieval_by_language(
        image, text, owner, ["en", "zh"] * 12, text_bias=bias, bootstrap=0
    )
    for start, name in enumerate(("en", "zh")):
        part = slice(start, None, 2)
        expected = retrieval(image, text[part], owner[part], text_bias=bias[part], bootstrap=0)
        assert found[name] == expected


def test_figures_of_a_corrected_gallery(gallery: Gallery) -> None:
    hubs = correction()
    ours = corrected(gallery, hubs)
    assert corrected(gallery, None) is gallery
    np.testing.assert_array_equal(ours.image_bias, hubs.bias("image", gallery.image, "text"))
    np.testing.assert_array_equal(ours.text_bias, hubs.bias("text", gallery.text, "image"))
    found, plain = evaluate_gallery(ours, bootstrap=0), evaluate_gallery(gallery, bootstrap=0)
    assert "retrieval_plain" not in plain
    assert found["retrieval_plain"] == plain["retrieval"] != found["retrieval"]
    assert found["mean_recall"] == mean_recall(found["retrieval"])
    assert found["languages"] != plain["languages"]
    assert found["geometry"] == plain["geometry"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_searches_of_a_report_stand_in_the_corrected_order(gallery: Gallery) -> None:
    ours = corrected(gallery, correction())
    assert ours.image_bias is not None and ours.text_bias is not None
    for search in text_searches(ours, count=6, k=5):
        column = list(gallery.texts).index(search.query)
        scores = gallery.image @ gallery.text[column] - ours.image_bias
        order = np.argsort(-scores)[:5]
        assert [hit.id for hit in search.results] == [gallery.ids[row] for row in order]
        np.testing.assert_allclose([h.score for h in search.results], scores[order], atol=1e-6)
    for search in picture_searches(ours, count=4, k=4):
        row = next(i for i in range(11) if gallery.words_of(i) == search.query)
        order = np.argsort(-(gallery.text @ gallery.image[row] - ours.text_bias))[:4]
        assert [hit.text for hit in search.results] == [gallery.texts[c] for c in order]
    ranks = retrieval_ranks(
        gallery.image, gallery.text, gallery.text_owner, image_bias=ours.image_bias
    ).text_to_image
    assert worst_mistakes(ours, count=1)[0].answer.rank == ranks.max()


def test_a_report_says_so(gallery: Gallery) -> None:
    found = evaluate_gallery(corrected(gallery, correction()), bootstrap=0)
    plain = {key: value for key, value in found.items() if key != "retrieval_plain"}
    words = correction_words(found["retrieval_plain"])
    assert "by cosine alone" in words and words in results(found)
    assert "corrected for hubs" not in results(plain) and correction_words(None) == ""
