"""Geometry against torch's pairwise distances, scikit-learn's ROC area, and cases solved by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plait.evaluation.metrics.geometry import (
    alignment,
    geometry,
    modality_gap,
    pair_cosines,
    rankme,
    uniformity,
)


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("chunk", [7, 1024])
def test_uniformity_as_its_authors_write_it(chunk: int) -> None:
    rows = unit(60, 5, 0)
    expected = torch.pdist(torch.tensor(rows)).pow(2).mul(-2).exp().mean().log().item()
    assert uniformity(rows, chunk=chunk) == pytest.approx(expected, abs=1e-12)


def test_uniformity_at_its_ends() -> None:
    assert uniformity(np.tile(unit(1, 4, 0), (9, 1))) == pytest.approx(0, abs=1e-12)
    assert uniformity(np.eye(64)) == pytest.approx(-4)  # squared distance 2 everywhere
    assert uniformity(np.array([[1.0], [-1.0]])) == pytest.approx(-8)


def test_uniformity_of_a_sample_is_near_that_of_all() -> None:
    rows = unit(3000, 8, 1)
    assert uniformity(rows, limit=1000) == pytest.approx(uniformity(rows), abs=0.05)


def test_rankme_counts_equal_directions() -> None:
    # four orthogonal directions of equal strength, and one alone
    assert rankme(np.tile(np.eye(4, 10), (5, 1))) == pytest.approx(4, rel=1e-4)
    assert rankme(np.tile(unit(1, 8, 0), (6, 1))) == pytest.approx(1, rel=1e-4)
    # singular values 3 and 1: entropy of (3/4, 1/4)
    rows = np.diag([3.0, 1.0])
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert rankme(rows) == pytest.approx(expected, rel=1e-5)


def test_gap_and_alignment_by_hand() -> None:
    image = np.array([[1.0, 0.0], [1.0, 0.0]])
    text = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    assert modality_gap(image, text) == pytest.approx(np.hypot(1, 1 / 3))
    assert alignment(image, text, np.array([0, 1, 1])) == pytest.approx((2 + 0 + 4) / 3)


def test_separation_equals_the_area_under_the_roc_curve() -> None:
    from sklearn.metrics import roc_auc_score

    image, text = unit(40, 4, 1), unit(40, 4, 2)
    text = text + 0.8 * image
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    groups = np.arange(40) // 2
    found = pair_cosines(image, text, np.arange(40), image_groups=groups, draws=200_000)
    scores = image @ text.T
    other = groups[:, None] != groups[None]
    labels = np.concatenate([np.ones(40), np.zeros(other.sum())])
    expected = roc_auc_score(labels, np.concatenate([np.diag(scores), scores[other]]))
    assert found["separation"] == pytest.approx(expected, abs=0.003)
    assert found["true"]["mean"] == pytest.approx(np.diag(scores).mean())
    assert found["random"]["mean"] == pytest.approx(scores[other].mean(), abs=0.01)
    assert sum(found["true"]["histogram"]) == pytest.approx(1, abs=1e-4)


def test_nothing_wrong_to_draw() -> None:
    found = pair_cosines(unit(1, 3, 0), unit(2, 3, 1), np.zeros(2, dtype=int))
    assert found["random"] is None and found["separation"] is None
    whole = geometry(unit(1, 3, 0), unit(2, 3, 1), np.zeros(2, dtype=int))
    assert whole["uniformity"]["image"] is None


def test_geometry_is_json() -> None:
    import json

    found = geometry(unit(9, 4, 0), unit(12, 4, 1), np.arange(12) % 9)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
