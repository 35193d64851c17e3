"""`evaluate_alignment` and `write_report` on a small model, against embedding by hand."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plait.core.errors import DataError
from plait.core.files import read_json
from plait.core.media import BytesRef
from plait.data.base.dataset import PairDataset
from plait.encoders.registry import build_encoder
from plait.evaluation import evaluate_alignment, write_report
from plait.evaluation.metrics.retrieval import retrieval
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.projection import build_projection


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))


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


@pytest.fixture
def dataset(samples) -> PairDataset:
    """The samples with pictures that all differ."""
    made = []
    for number, sample in enumerate(samples):
        pixels = np.random.default_rng(number).integers(256, size=(6, 5, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((50, 40), Image.Resampling.NEAREST).save(buffer, "PNG")
        ref = None if sample.image is None else BytesRef(buffer.getvalue(), sample.image.name)
        made.append(replace(sample, image=ref))
    return PairDataset(made, "test", assigned=["train"] * 4 + ["test"] * 8)


def test_figures_equal_those_of_vectors_embedded_one_by_one(model, dataset) -> None:
    options = {"engine": "torch", "precision": "float32"}
    found = evaluate_alignment(model, dataset, split="test", bootstrap=20, **options)
    part = [sample for sample in dataset.split("test") if sample.image is not None]
    assert len(part) == 7 and found["counts"]["without_image"] == 1
    image = np.concatenate([model.embed(images=[s.image])["image"] for s in part])
    text = np.concatenate([model.embed(texts=[t])["text"] for s in part for t in s.texts])
    owner = np.repeat(np.arange(7), 2)
    expected = retrieval(image, text, owner, bootstrap=20)
    assert found["retrieval"] == expected
    assert set(found["languages"]) == {"en", "zh"}
    assert found["zero_shot"]["classes"] == 4
    cosines = (image[owner] * text).sum(axis=1)
    assert found["geometry"]["cosines"]["true"]["mean"] == pytest.approx(cosines.mean(), abs=1e-5)


def test_an_empty_split_is_refused(model, dataset) -> None:
    with pytest.raises(DataError, match="no samples in the split 'validation'"):
        evaluate_alignment(model, dataset, split="validation", engine="torch")


def test_a_report_with_samples_looked_up(model, dataset, tmp_path: Path) -> None:
    part = dataset.split("test")
    path = write_report(tmp_path, model=model, dataset=part, engine="torch")
    examples = read_json(tmp_path / "examples.json")
    assert len(examples["searches"]) == 7 and examples["mistakes"]
    for search in examples["searches"]:
        scores = [hit["score"] for hit in search["results"]]
        assert scores == sorted(scores, reverse=True)
        assert search["answer"]["right"] and search["results"][0]["picture"].startswith(
            "data:image"
        )
    assert "Sample searches" in path.read_text(encoding="utf-8")
