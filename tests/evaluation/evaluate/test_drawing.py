"""What is reported of a drawing model, against its parts asked picture by picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models.drawing.made import TEXTS
from tests.models.drawing.made import drawing as made

from plait.core.errors import DataError
from plait.core.media import BytesRef
from plait.data import PairDataset
from plait.data.base.sample import Sample
from plait.evaluation.evaluate import drawing as drawing
from plait.evaluation.evaluate.drawing import evaluate_drawing
from plait.modalities.image.fast_decode import load_pixels
from plait.models.drawing.drawing import DrawingModel


@pytest.fixture(scope="module")
def model() -> DrawingModel:
    """With codes that differ between pictures, which those of fresh weights hardly do."""
    model = made()
    with torch.no_grad():
        for parameter in model.dvae.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return model


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Five noisy pictures, the third without a text; and a text without a picture."""
    source, found = np.random.default_rng(0), []
    for number in range(5):
        buffer = io.BytesIO()
        Image.fromarray(source.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
        texts = () if number == 2 else (TEXTS[number - (number > 2)], "never read")
        picture = BytesRef(buffer.getvalue(), f"{number}.png")
        found.append(Sample(str(number), f"row {number}", picture, texts))
    return [*found, Sample("5", "row 5", None, ("no picture",))]


def dataset(samples: list[Sample]) -> PairDataset:
    return PairDataset(samples, "made", assigned=["test"] * len(samples))


def of_one(model: DrawingModel, sample: Sample) -> tuple[float, torch.Tensor]:
    """Mean square error of one picture with pixels in 0..1, and its codes."""
    assert sample.image is not None
    pixels = torch.as_tensor(load_pixels([sample.image], model.pixels))
    with torch.no_grad():
        codes = model.dvae.codes(pixels)
        rebuilt = model.dvae.decode(codes)
    return float(((pixels.numpy() / 255.0 - rebuilt.numpy() / 255.0) ** 2).mean()), codes


def nats_of_one(model: DrawingModel, codes: torch.Tensor, text: str | None) -> float:
    """Mean cross-entropy of one picture's codes; without a text nothing but padding is read."""
    ids, mask = (torch.from_numpy(one) for one in model.preprocess([text or ""]))
    read = model.transformer.padded(ids, mask if text else torch.zeros_like(mask))
    with torch.no_grad():
        logits = model.transformer(read, codes.flatten(1))[1]
    return float(torch.nn.functional.cross_entropy(logits[0].double(), codes.flatten()))


@pytest.mark.parametrize("at_once", [2, 64])
def test_picture_by_picture(
    at_once: int, model: DrawingModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "AT_ONCE", at_once)
    found = evaluate_drawing(model, dataset(samples), bootstrap=0, seed=4)
    assert found["counts"] == {"pictures": 5, "texts": 4}
    errors, grids = zip(*(of_one(model, one) for one in samples[:5]), strict=True)
    said = found["reconstruction"]
    assert said["mse"] == pytest.approx(np.mean(errors), rel=1e-9)
    assert said["psnr"] == pytest.approx(np.mean([10 * np.log10(1 / one) for one in errors]))
    chances = np.unique(torch.cat(grids).numpy(), return_counts=True)[1] / torch.cat(grids).numel()
    assert said["codes_used"] == pytest.approx(len(chances) / model.dvae.code_count)
    assert said["perplexity"] == pytest.approx(np.prod(chances**-chances))
    told = [0, 1, 3, 4]
    texts = [samples[place].texts[0] for place in told]
    nats = [[nats_of_one(model, grids[place], text) for text in texts] for place in told]
    codes = found["codes"]
    assert set(codes) == {"with_text", "shuffled_texts", "without_text"}
    assert codes["with_text"] == pytest.approx(np.trace(nats) / 4, rel=1e-9)
    none = [nats_of_one(model, grids[place], None) for place in told]
    assert codes["without_text"] == pytest.approx(np.mean(none), rel=1e-9)
    # The six ways in which four go round in one circle, each with another's text.
    circles = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
    shuffled = [
        np.mean([nats[a][b] for a, b in zip((0, *circle), (*circle, 0), strict=True)])
        for circle in circles
    ]
    assert any(codes["shuffled_texts"] == pytest.approx(one, rel=1e-9) for one in shuffled)
    assert len({round(float(one), 6) for one in shuffled}) > 1  # so they could be told apart
    others = [evaluate_drawing(model, dataset(samples), bootstrap=0, seed=n) for n in range(6)]
    assert len({one["codes"]["shuffled_texts"] for one in others}) > 1


def test_intervals_hold_the_mean_and_narrow_with_equal_pictures(
    model: DrawingModel, samples: list[Sample]
) -> None:
    found = evaluate_drawing(model, dataset(samples), bootstrap=200)
    for part, names in (("reconstruction", ("mse", "psnr")), ("codes", list(found["codes"])[:1])):
        for name in names:
            one = found[part]
            assert one[f"{name}_low"] < one[name] < one[f"{name}_high"]
    alike = evaluate_drawing(model, dataset(samples[:1] * 3), bootstrap=200)["reconstruction"]
    assert alike["mse_low"] == pytest.approx(alike["mse"]) == alike["mse_high"]
    single = evaluate_drawing(model, dataset(samples[:1]))
    assert "mse_low" not in single["reconstruction"]


def test_interval_is_that_of_resampled_means() -> None:
    """Of 0 and 1 a quarter of the means is 0 and a quarter 1; of a hundred, the normal's 1.96."""
    few: dict[str, Any] = drawing._mean("x", np.array([0.0, 1.0]), 2000, 0)
    assert few == {"x": 0.5, "x_low": 0, "x_high": 1}
    many = drawing._mean("x", np.arange(100.0), 4000, 0)
    half = 1.96 * np.arange(100.0).std() / 10
    assert many["x_low"] == pytest.approx(49.5 - half, abs=0.4)
    assert many["x_high"] == pytest.approx(49.5 + half, abs=0.4)


def test_without_texts_or_pictures(model: DrawingModel, samples: list[Sample]) -> None:
    found = evaluate_drawing(model, dataset(samples[2:3]), bootstrap=0)
    assert set(found) == {"reconstruction", "counts"}
    assert found["counts"] == {"pictures": 1}
    with pytest.raises(DataError, match="no sample of the split 'test' has a picture"):
        evaluate_drawing(model, dataset(samples[5:]), split="test")
