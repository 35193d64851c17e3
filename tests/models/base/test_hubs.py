"""The correction for hubs against sorting by hand, and its way to disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.core.errors import ModelError
from plait.models.alignment.alignment import AlignmentModel
from plait.models.base import hubs as module
from plait.models.base.hubs import HubCorrection, hub_bias
from plait.models.store.storage import load_model, save_model


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def correction(width: int = 6, neighbours: int = 4, strength: float = 0.5) -> HubCorrection:
    banks = {
        "image": torch.from_numpy(unit(9, width, 1)),
        "text": torch.from_numpy(unit(13, width, 2)),
    }
    return HubCorrection(banks, neighbours=neighbours, strength=strength)


@pytest.mark.parametrize(("neighbours", "strength"), [(1, 1.0), (4, 0.75), (13, 0.5), (99, 0.25)])
def test_equals_sorting_by_hand(
    neighbours: int, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 5)
    rows, bank = unit(17, 6, 3), unit(13, 6, 4)
    found = hub_bias(rows, bank, neighbours=neighbours, strength=strength)
    for place, row in enumerate(rows):
        cosines = sorted(sum(a * b for a, b in zip(row.tolist(), q.tolist())) for q in bank)
        nearest = cosines[::-1][:neighbours]
        assert found[place] == pytest.approx(strength * sum(nearest) / len(nearest), abs=1e-12)


def test_a_row_in_the_middle_of_the_queries_gives_way() -> None:
    """Worked by hand: queries at 60 degrees to either side of the first axis."""
    bank = np.array([[0.5, np.sqrt(0.75)], [0.5, -np.sqrt(0.75)]])
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    found = hub_bias(rows, bank, neighbours=2, strength=1.0)
    np.testing.assert_allclose(found, [0.5, 0.0, -0.5], atol=1e-12)


def test_equal_rows_and_no_rows() -> None:
    rows = np.tile(unit(1, 64, 5), (3000, 1))
    found = hub_bias(rows, unit(100, 64, 6))
    assert np.ptp(found) < 1e-12
    assert hub_bias(rows[:0], unit(3, 64, 6)).shape == (0,)


def test_each_modality_asks_with_its_own_bank() -> None:
    hubs, rows = correction(), unit(5, 6, 7)
    for gallery, query in (("image", "text"), ("text", "image")):
        expected = hub_bias(rows, hubs.bank(query).numpy(), neighbours=4, strength=0.5)
        np.testing.assert_array_equal(hubs.bias(gallery, rows, query), expected)
        assert not hubs.bias(query, rows, query).any()
    with pytest.raises(ModelError, match="image and text, not of 'sound'"):
        hubs.bias("image", rows, "sound")


def test_what_is_refused() -> None:
    bank = torch.from_numpy(unit(3, 6, 0))
    for settings in ({"neighbours": 0}, {"strength": 0.0}, {"strength": 1.5}):
        with pytest.raises(ModelError, match="neighbours from 1 on"):
            HubCorrection({"text": bank}, **settings)
    with pytest.raises(ModelError, match=r"bank of text has the shape \(2049, 6\)"):
        HubCorrection({"text": torch.zeros(2049, 6)})
    with pytest.raises(ModelError, match="1 to 2048 rows"):
        HubCorrection({"text": bank[:0]})


def test_saved_and_loaded(model: AlignmentModel, tmp_path: Path) -> None:
    plain = model.embed(texts=["a cat"])["text"]
    save_model(model, tmp_path / "plain")
    spec = json.loads((tmp_path / "plain" / "model.json").read_text())
    assert spec["version"] == 1 and "hubs" not in spec
    older = load_model(tmp_path / "plain")
    assert isinstance(older, AlignmentModel) and older.hubs is None
    model.hubs = correction()
    save_model(model, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    again = load_model(tmp_path / "moved")
    assert isinstance(again, AlignmentModel) and again.hubs is not None
    assert (again.hubs.neighbours, again.hubs.strength) == (4, 0.5)
    rows = unit(8, 6, 8)
    for gallery, query in (("image", "text"), ("text", "image")):
        np.testing.assert_array_equal(
            again.hubs.bias(gallery, rows, query), model.hubs.bias(gallery, rows, query)
        )
    np.testing.assert_array_equal(again.embed(texts=["a cat"])["text"], plain)
