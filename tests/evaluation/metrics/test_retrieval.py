"""Recall@k against a brute force that sorts whole rows, and against examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from plait.core.errors import DataError
from plait.evaluation.metrics.retrieval import (
    bootstrap_interval,
    mean_recall,
    retrieval,
    retrieval_by_language,
    retrieval_ranks,
)


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def brute_rank(scores: list[float], right: set[int]) -> int:
    """Position of the first right candidate when wrong ones come first among equals."""
    order = sorted(range(len(scores)), key=lambda c: (-scores[c], c in right))
    return 1 + min(order.index(c) for c in right)


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("grouped", [False, True])
def test_ranks_equal_sorting_every_row(chunk: int, grouped: bool) -> None:
    random = np.random.default_rng(1)
    image, text = unit(23, 4, 2), unit(61, 4, 3)
    owner = np.concatenate([random.permutation(20), random.integers(20, size=41)])  # 3 without
    groups = random.integers(9, size=23) if grouped else np.arange(23)
    found = retrieval_ranks(
        image, text, owner, image_groups=groups if grouped else None, chunk=chunk
    )
    scores = image @ text.T
    for j in range(61):
        right = {i for i in range(23) if groups[i] == groups[owner[j]]}
        assert found.text_to_image[j] == brute_rank(list(scores[:, j]), right)
    for i in range(23):
        right = {j for j in range(61) if groups[owner[j]] == groups[i]}
        expected = brute_rank(list(scores[i]), right) if right else 0
        assert found.image_to_text[i] == expected


def test_worked_by_hand() -> None:
    # two images on the axes; texts at 0, 60 and 90 degrees, the second told of image 0:
    # its cosine to image 0 is 0.5, to image 1 it is 0.866, so image 0 comes second
    image = np.eye(2)
    text = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)], [0.0, 1.0]])
    result = retrieval(image, text, np.array([0, 0, 1]), ks=(1, 2), bootstrap=200)
    assert result["text_to_image"]["R@1"] == pytest.approx(200 / 3)
    assert result["text_to_image"]["R@2"] == 100
    assert result["text_to_image"]["median_rank"] == 1
    assert result["image_to_text"]["R@1"] == 100  # image 0 finds its first text at once
    assert mean_recall(result) == pytest.approx((200 / 3 + 300) / 4)
    assert result["text_to_image"]["queries"] == 3
    assert result["image_to_text"]["candidates"] == 3


def test_a_tie_counts_against_the_model() -> None:
    same = np.tile(unit(1, 64, 5).astype(np.float32), (37, 1))
    ranks = retrieval_ranks(same, same, np.arange(37))
    assert (ranks.text_to_image == 37).all() and (ranks.image_to_text == 37).all()


def test_copies_tie_in_float32_wherever_they_stand() -> None:
    image = unit(300, 48, 6).astype(np.float32)
    image[1::2] = image[::2]  # every picture twice: each true one has one equal rival
    ranks = retrieval_ranks(image, image, np.arange(300), chunk=41)
    assert (ranks.text_to_image == 2).all() and (ranks.image_to_text == 2).all()
    together = retrieval_ranks(image, image, np.arange(300), image_groups=np.arange(300) // 2)
    assert (together.text_to_image == 1).all() and (together.image_to_text == 1).all()


def test_not_a_number_is_the_worst_rank() -> None:
    image, text = unit(5, 3, 7), unit(5, 3, 8)
    text[2] = np.nan
    assert retrieval_ranks(image, text, np.arange(5)).text_to_image[2] == 5
    image[:] = np.nan
    assert (retrieval_ranks(image, text, np.arange(5)).text_to_image == 5).all()


def test_interval_against_drawing_one_image_at_a_time() -> None:
    random = np.random.default_rng(9)
    image = unit(40, 3, 10)
    text = unit(90, 3, 11)
    owner = np.concatenate([np.arange(40), random.integers(40, size=50)])
    result = retrieval(image, text, owner, ks=(5,), bootstrap=4000)["text_to_image"]
    hits = retrieval_ranks(image, text, owner).text_to_image <= 5
    means = []
    for _ in range(4000):
        drawn = random.integers(40, size=40)
        means.append(np.concatenate([hits[owner == i] for i in drawn]).mean())
    low, high = np.percentile(means, [2.5, 97.5])
    assert result["R@5_low"] == pytest.approx(100 * low, abs=1.2)
    assert result["R@5_high"] == pytest.approx(100 * high, abs=1.2)
    assert result["R@5_low"] < result["R@5"] < result["R@5_high"]


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(12)
    covered = 0
    for trial in range(300):
        values = (random.random((120, 1)) < 0.3).astype(float)
        low, high = bootstrap_interval(values, np.arange(120), replicates=300, seed=trial)  # type: ignore[misc]
        covered += low[0] <= 0.3 <= high[0]
    assert 0.90 <= covered / 300 <= 0.985


def test_same_seed_same_interval_and_none_without_bootstrap() -> None:
    image, text = unit(30, 4, 1), unit(30, 4, 2)
    first = retrieval(image, text, np.arange(30), bootstrap=100)
    assert first == retrieval(image, text, np.arange(30), bootstrap=100)
    assert first != retrieval(image, text, np.arange(30), bootstrap=100, seed=5)
    assert "R@1_low" not in retrieval(image, text, np.arange(30), bootstrap=0)["text_to_image"]


def test_each_language_is_asked_alone() -> None:
    image, text = unit(12, 4, 1), unit(24, 4, 2)
    owner = np.arange(24) % 12
    languages = ["en"] * 12 + ["zh"] * 11 + [None]
    found = retrieval_by_language(image, text, owner, languages, bootstrap=0)
    assert list(found) == ["en", "zh"]
    assert found["en"] == retrieval(image, text[:12], owner[:12], bootstrap=0)
    assert found["zh"] == retrieval(image, text[12:23], owner[12:23], bootstrap=0)
    assert found["zh"]["image_to_text"]["queries"] == 11  # the twelfth has no Chinese text


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("shapes", "owner", "groups", "message"),
    [
        ((3, 2, 2, 2), [0, 3], None, "0 to 2"),
        ((3, 2, 2, 2), [0, -1], None, "0 to 2"),
        ((3, 2, 0, 2), [], None, "0 texts"),
        ((0, 2, 2, 2), [0, 0], None, "0 images"),
        ((3, 2, 2, 3), [0, 1], None, "images have 2 features, texts 3"),
        ((3, 2, 2, 2), [0], None, "2 texts, but 1 owners"),
        ((3, 2, 2, 2), [0, 1, 2], None, "2 texts, but 3 owners"),
        ((3, 2, 2, 2), [0, 1], np.zeros(2, int), "3 images, but 2 groups"),
        ((3, 2, 2, 2), [0, 1], np.zeros(4, int), "3 images, but 4 groups"),
    ],
)
def test_what_does_not_fit_is_refused(shapes, owner, groups, message) -> None:
    a, b, c, d = shapes
    with pytest.raises(DataError, match=message):
        retrieval_ranks(
            np.ones((a, b)), np.ones((c, d)), np.array(owner, dtype=int), image_groups=groups
        )


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize("given", [1, 3])
def test_corrections_for_others_are_refused(given: int) -> None:
    rows, owner = np.eye(2), np.arange(2)
    with pytest.raises(DataError, match=f"2 images, but {given} corrections of their scores"):
        retrieval_ranks(rows, rows, owner, image_bias=np.zeros(given))
    with pytest.raises(DataError, match=f"2 texts, but {given} corrections of their scores"):
        retrieval_ranks(rows, rows, owner, text_bias=np.zeros(given))


def test_pictures_without_texts_are_candidates_alone() -> None:
    """The first picture is nearest to the text of the second."""
    image, text = np.eye(3), np.array([[0.8, 0.6, 0.0]])
    found = retrieval_ranks(image, text, np.array([1]))
    assert found.text_to_image.tolist() == [2]
    assert found.image_to_text.tolist() == [0, 1, 0]  # 0: there is nothing to find
