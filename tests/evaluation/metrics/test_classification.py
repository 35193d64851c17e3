"""Zero-shot accuracy and calibration against scikit-learn and torchmetrics; Winoground by hand."""

from __future__ import annotations

import numpy as np
import pytest

from plait.core.errors import DataError
from plait.evaluation.metrics.classification import (
    brier_score,
    class_vectors,
    expected_calibration_error,
    paired_choice,
    zero_shot,
)


def unit(*shape: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    image, classes = unit(400, 6, seed=1), unit(9, 6, seed=2)
    labels = random.integers(8, size=400)  # the ninth class never occurs
    return image, classes, labels


@pytest.mark.parametrize("chunk", [7, 1000])
def test_accuracies_equal_scikit_learn(scored, chunk: int) -> None:
    from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

    image, classes, labels = scored
    result = zero_shot(image, classes, labels, ks=(1, 3), bootstrap=50, chunk=chunk)
    scores = image @ classes.T
    for k in (1, 3):
        expected = 100 * top_k_accuracy_score(labels, scores, k=k, labels=np.arange(9))
        assert result[f"top{k}"] == pytest.approx(expected)
        assert result[f"top{k}_low"] <= expected <= result[f"top{k}_high"]
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = 100 * balanced_accuracy_score(labels, scores.argmax(axis=1))
    assert result["mean_per_class"] == pytest.approx(expected)


def test_equal_classes_count_against_the_model() -> None:
    classes = np.tile(unit(1, 4, seed=1), (3, 1))
    result = zero_shot(classes[:2], classes, np.array([0, 1]), ks=(1, 2, 3), bootstrap=9)
    assert (result["top1"], result["top2"], result["top3"]) == (0, 0, 100)
    assert (result["top1_high"], result["top3_low"], result["top3_high"]) == (0, 100, 100)


def test_prompts_are_averaged_then_renormalised() -> None:
    prompts = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    np.testing.assert_allclose(class_vectors(prompts), [[0.5**0.5, 0.5**0.5], [0, 1]])
    with pytest.raises(DataError, match="class 1 cancel"):
        class_vectors(np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]]))


def test_a_label_without_class_is_refused(scored) -> None:
    image, classes, labels = scored
    with pytest.raises(DataError, match="at least one image"):
        zero_shot(image[:0], classes, labels[:0])
    with pytest.raises(DataError, match="0 to 8, but reach from -1 to 7"):
        zero_shot(image, classes, np.where(labels == 0, -1, labels))
    with pytest.raises(DataError, match="0 to 7"):
        zero_shot(image, classes[:8], np.where(labels == 0, 8, labels))


def test_winoground_by_hand() -> None:
    scores = np.array(
        [  # rows: captions, columns: images
            [[0.9, 0.1], [0.2, 0.8]],  # both right
            [[0.9, 0.95], [0.2, 0.97]],  # caption 0 prefers image 1: image wrong, text right
            [[0.5, 0.1], [0.6, 0.7]],  # image 0 prefers caption 1: text wrong, image right
            [[0.5, 0.5], [0.5, 0.5]],  # ties are wrong
        ]
    )
    assert paired_choice(scores) == {"text": 50.0, "image": 50.0, "group": 25.0}


def test_calibration_equals_torchmetrics_and_scikit_learn() -> None:
    import torch
    from sklearn.metrics import brier_score_loss
    from torchmetrics.functional.classification import multiclass_calibration_error

    random = np.random.default_rng(3)
    logits = random.normal(size=(500, 5)) * 3
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = random.integers(5, size=500)
    for bins in (1, 10, 15):
        expected = multiclass_calibration_error(
            torch.tensor(probabilities), torch.tensor(labels), 5, n_bins=bins
        )
        found = expected_calibration_error(probabilities, labels, bins=bins)
        assert found == pytest.approx(float(expected), abs=1e-6)
    fifteen = expected_calibration_error(probabilities, labels, bins=15)
    assert expected_calibration_error(probabilities, labels) == fifteen  # as its authors have it
    assert fifteen != expected_calibration_error(probabilities, labels, bins=16)
    expected = brier_score_loss(labels, probabilities, labels=np.arange(5), scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(expected)


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    labels = np.array([0, 1, 0])
    # the bin at 0.9 has accuracy 0.5, the one at 0.6 accuracy 1: (2 * 0.4 + 1 * 0.4) / 3
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(0.4)
    assert brier_score(probabilities, labels) == pytest.approx((0.02 + 1.62 + 0.32) / 3)
