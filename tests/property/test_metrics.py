"""Laws of the metrics, on whatever hypothesis comes up with."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.evaluation.metrics.classification import brier_score, expected_calibration_error
from plait.evaluation.metrics.geometry import rankme, uniformity
from plait.evaluation.metrics.retrieval import retrieval, retrieval_ranks

fast = settings(max_examples=40, deadline=None)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images, texts, owners and groups; few distinct vectors, so that ties are common."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(1, 9)), draw(st.integers(1, 14))
    corners = random.normal(size=(draw(st.integers(1, 6)), 3))
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    image = corners[random.integers(len(corners), size=n)]
    text = corners[random.integers(len(corners), size=m)]
    owner = random.integers(n, size=m)
    groups = random.integers(draw(st.integers(1, 9)), size=n)
    return image, text, owner, groups


@fast
@given(problems(), st.integers(0, 1000), st.integers(1, 5))
def test_order_of_rows_and_size_of_tiles_change_nothing(problem, seed: int, chunk: int) -> None:
    image, text, owner, groups = problem
    random = np.random.default_rng(seed)
    rows, columns = random.permutation(len(image)), random.permutation(len(text))
    place = np.argsort(rows)  # the new row of each old image
    one = retrieval_ranks(image, text, owner, image_groups=groups)
    two = retrieval_ranks(
        image[rows], text[columns], place[owner[columns]], image_groups=groups[rows], chunk=chunk
    )
    assert (two.text_to_image == one.text_to_image[columns]).all()
    assert (two.image_to_text == one.image_to_text[rows]).all()


@fast
@given(problems())
def test_recall_grows_with_k_and_ends_at_all(problem) -> None:
    image, text, owner, _ = problem
    ks = tuple(range(1, max(len(image), len(text)) + 1))
    found = retrieval(image, text, owner, ks=ks, bootstrap=20)
    for way in ("text_to_image", "image_to_text"):
        recalls = [found[way][f"R@{k}"] for k in ks]
        assert recalls == sorted(recalls) and recalls[-1] == 100
        # Of one picture, or of texts of one picture alone, there is no interval to draw.
        asked = len(np.unique(owner))
        for k in ks:
            if asked < 2:
                assert f"R@{k}_low" not in found[way]
            else:
                assert 0 <= found[way][f"R@{k}_low"] <= found[way][f"R@{k}_high"] <= 100


@fast
@given(problems())
def test_a_rival_with_the_same_vector_never_helps(problem) -> None:
    image, text, owner, _ = problem
    one = retrieval_ranks(image, text, owner)
    # the same picture once more, as a wrong answer: every text of it slips by exactly one
    two = retrieval_ranks(np.concatenate([image, image[:1]]), text, owner)
    own = owner == 0
    assert (two.text_to_image[own] == one.text_to_image[own] + 1).all()
    assert (two.text_to_image >= one.text_to_image).all()


@fast
@given(problems())
def test_a_second_copy_of_a_text_changes_no_rank_of_a_text(problem) -> None:
    image, text, owner, _ = problem
    one = retrieval_ranks(image, text, owner)
    two = retrieval_ranks(image, np.tile(text, (2, 1)), np.tile(owner, 2))
    assert (two.text_to_image == np.tile(one.text_to_image, 2)).all()
    # candidates double: r - 1 wrong ones before the best right one become 2 (r - 1)
    asked = one.image_to_text > 0
    assert (two.image_to_text[asked] == 2 * one.image_to_text[asked] - 1).all()


@fast
@given(problems())
def test_wider_groups_never_hurt(problem) -> None:
    image, text, owner, groups = problem
    alone = retrieval_ranks(image, text, owner)
    together = retrieval_ranks(image, text, owner, image_groups=groups)
    assert (together.text_to_image <= alone.text_to_image).all()
    asked = alone.image_to_text > 0
    assert (together.image_to_text[asked] <= alone.image_to_text[asked]).all()


@fast
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 6))
def test_geometry_does_not_see_rotations_and_keeps_its_range(seed: int, n: int, width: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    turn, _ = np.linalg.qr(random.normal(size=(width, width)))
    np.testing.assert_allclose(rankme(rows @ turn), rankme(rows), rtol=1e-9)
    np.testing.assert_allclose(uniformity(rows @ turn), uniformity(rows), atol=1e-9)
    assert 1 - 1e-3 <= rankme(rows) <= min(n, width) + 1e-3
    assert -8 - 1e-9 <= uniformity(rows) <= 1e-9


@fast
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 5), st.integers(1, 20))
def test_calibration_keeps_its_range(seed: int, n: int, classes: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.3), size=n)
    labels = random.integers(classes, size=n)
    assert 0 <= expected_calibration_error(probabilities, labels, bins=bins) <= 1
    assert 0 <= brier_score(probabilities, labels) <= 2
    certain = np.eye(classes)[labels]
    assert expected_calibration_error(certain, labels, bins=bins) == 0
    assert brier_score(certain, labels) == 0
