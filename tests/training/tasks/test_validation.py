from __future__ import annotations

import numpy as np
import pytest
import torch

from plait.core.batch import Batch, ModalityInput
from plait.encoders.registry import build_encoder
from plait.evaluation.metrics.geometry import rankme
from plait.evaluation.metrics.retrieval import mean_recall, retrieval
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.projection import build_projection
from plait.objectives import info_nce_plain
from plait.training.batches.supply import Alike, FeatureSource
from plait.training.tasks.tasks import ContrastiveTask
from plait.training.tasks.validation import Validator, effective_rank, watched


@pytest.mark.parametrize("shape", [(40, 16), (16, 40), (2, 8)])
def test_effective_rank_is_rankme(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(shape) * torch.logspace(0, -3, shape[1]))
    assert effective_rank(rows) == pytest.approx(rankme(rows.numpy()), rel=1e-5)


def test_a_collapsed_space_has_rank_one() -> None:
    assert effective_rank(torch.ones(10, 4) / 2) == pytest.approx(1.0, abs=1e-4)


def model() -> AlignmentModel:
    torch.manual_seed(0)
    image = build_encoder("scratch/cnn", modality="image", size=16, widths=[4, 8])
    text = build_encoder("scratch/transformer", modality="text", width=8, layers=1, heads=2)
    towers = {
        "image": Tower(image, build_projection("linear", image.width, 6)),
        "text": Tower(text, build_projection("linear", text.width, 6)),
    }
    return AlignmentModel(towers)


def test_figures_by_hand() -> None:
    """Against the model run directly and the plain formulas, in chunks that don't divide."""
    tested = model().eval()
    counts = [2, 1, 3, 1, 1]
    random = np.random.default_rng(0)
    pictures = random.normal(size=(5, 1, 8)).astype(np.float32)
    texts = random.normal(size=(8, 8)).astype(np.float32)
    groups = np.array([0, 1, 2, 2, 3])
    sources = {"image": FeatureSource(pictures, "sample"), "text": FeatureSource(texts, "text")}
    task = ContrastiveTask(tested)
    value, metrics = Validator(tested, task, sources, counts, Alike(groups), chunk=3)()

    def rows(name: str, features: np.ndarray) -> torch.Tensor:
        inputs = ModalityInput.of(features=torch.from_numpy(features))
        batch = Batch(
            [""] * len(features), torch.zeros(len(features), dtype=torch.long), {name: inputs}
        )
        return tested.encode(batch)[name].detach()

    image, text = rows("image", pictures[:, 0]), rows("text", texts)
    owner = np.array([0, 0, 1, 2, 2, 2, 3, 4])
    figures = retrieval(image.numpy(), text.numpy(), owner, image_groups=groups, bootstrap=0)
    assert metrics["retrieval"] == figures
    assert value == metrics["mean_recall"] == mean_recall(figures)
    ids = torch.from_numpy(groups)
    expected = info_nce_plain(image, text[[0, 2, 3, 6, 7]], tested.scale.detach(), ids, ids)
    assert metrics["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert metrics["rank"]["image"] == pytest.approx(rankme(image.numpy()), rel=1e-4)


def test_watched_values() -> None:
    metrics = {"loss": 2.0, "mean_recall": 7.0, "retrieval": {"text_to_image": {"R@5": 3.0}}}
    assert watched(metrics, "loss") == -2.0
    assert watched(metrics, "mean_recall") == 7.0
    assert watched(metrics, "text_to_image.R@5") == 3.0
