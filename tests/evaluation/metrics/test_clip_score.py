"""CLIPScore by hand, and by a small model against its embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from plait.core.errors import DataError
from plait.encoders.registry import build_encoder
from plait.evaluation.metrics.clip_score import PREFIX, clip_score, clip_scores, ref_clip_score
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.projection import build_projection


def at(cosine: float) -> list[float]:
    """A vector with that cosine to (1, 0)."""
    return [cosine, (1 - cosine**2) ** 0.5]


def test_two_and_a_half_times_the_cosine_and_never_below_zero():
    image = np.array([[3.0, 0.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
    caption = np.array([at(0.3), at(-0.3), [5.0, 0.0]], np.float32)
    assert clip_score(image, caption) == pytest.approx([0.75, 0, 2.5], abs=1e-6)


def test_with_references_the_harmonic_mean():
    image = np.array([at(0.4), [0.0, 1.0], at(0.4), at(-1.0)])
    caption = np.array([[1.0, 0.0]] * 4)
    reference = np.array([at(0.1), at(0.5), at(0.9), at(-0.2), at(-0.5)])
    owner = np.array([0, 0, 1, 2, 3])
    # clip_score 1, nearest 0.5; clip_score 0; no reference alike; neither
    expected = [2 * 1 * 0.5 / 1.5, 0, 0, 0]
    assert ref_clip_score(image, caption, reference, owner) == pytest.approx(expected, abs=1e-12)


def test_a_caption_without_reference_and_a_vector_without_direction():
    rows = np.eye(2)
    with pytest.raises(DataError, match="caption 2 has no reference"):
        ref_clip_score(rows, rows, rows[:1], np.array([0]))
    for bad in (0.0, np.nan):
        spoilt = np.array([[1.0, 0.0], [bad, bad]])
        with pytest.raises(DataError, match="row 2 of the embeddings has no direction"):
            clip_score(spoilt, rows)


@pytest.fixture(scope="module")
def model() -> AlignmentModel:
    torch.manual_seed(0)
    image = build_encoder("scratch/cnn", modality="image", size=32, widths=(8, 16))
    text = build_encoder("scratch/transformer", modality="text", width=24, layers=1, heads=2)
    return AlignmentModel(
        {
            "image": Tower(image, build_projection("linear", image.width, 12)),
            "text": Tower(text, build_projection("linear", text.width, 12)),
        }
    ).eval()


@pytest.mark.parametrize("prefix", [PREFIX, ""])
def test_by_a_model(model, prefix):
    images = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "white")]
    captions = ["a red field", "blue", "nothing"]
    references = [["red"], ["blue", "a blue field"], ["white"]]
    found = clip_scores(model, images, captions, references, prefix=prefix)
    cosines = model.similarity(images, [prefix + one for one in captions])
    assert found["clip_score"] == pytest.approx(2.5 * np.maximum(np.diag(cosines), 0), abs=1e-5)
    # "blue" is one of its references: that cosine is 1
    to_image = found["clip_score"][1]
    assert found["ref_clip_score"][1] == pytest.approx(2 * to_image / (1 + to_image), abs=1e-5)
    assert list(clip_scores(model, images, captions, prefix=prefix)) == ["clip_score"]


def test_lists_of_different_lengths(model):
    with pytest.raises(DataError, match="1 images, but 2 captions"):
        clip_scores(model, [Image.new("RGB", (8, 8))], ["a", "b"])
    with pytest.raises(DataError, match="1 images, but 0 lists of references"):
        clip_scores(model, [Image.new("RGB", (8, 8))], ["a"], [])
