"""A model over several places gives what it gives in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.deployment.made import TEXTS, alignment_model, picture

from plait.core.errors import UserError
from plait.models.base.dispatch import device_of, dispatched

PICTURES = [picture(n) for n in range(3)]


@pytest.mark.parametrize(
    ("device_map", "max_memory"),
    [
        ({"towers.image": "cpu", "towers.text": "disk"}, None),
        ({"": "disk"}, None),
        ("auto", {"cpu": 14_000}),
    ],
)
def test_weights_on_disk_change_nothing(
    device_map: Any, max_memory: dict[Any, Any] | None, tmp_path: Path
) -> None:
    expected = alignment_model().embed(PICTURES, TEXTS)
    model = dispatched(
        alignment_model(), device_map, max_memory=max_memory, offload=tmp_path / "weights"
    )
    waiting = [name for name, weight in model.named_parameters() if weight.device.type == "meta"]
    assert waiting
    assert "log_scale" not in waiting
    found = model.embed(PICTURES, TEXTS)
    for name in ("image", "text"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
    assert device_of(model.tower("text")) == torch.device("cpu")
    np.testing.assert_allclose(
        model.classify(PICTURES, ["a", "b"]).sum(axis=1), np.ones(3), atol=1e-6
    )


def test_what_fits_stays_as_it_is() -> None:
    model = dispatched(alignment_model(), "auto", max_memory={"cpu": "1GiB"})
    assert all(weight.device.type == "cpu" for weight in model.parameters())
    assert set(model.embed(PICTURES, TEXTS)) == {"image", "text"}


def test_what_is_missing_is_told() -> None:
    with pytest.raises(UserError, match="does not fit into memory: name a folder"):
        dispatched(alignment_model(), "auto", max_memory={"cpu": 14_000})
    with pytest.raises(UserError, match=r"says nothing of 'towers\.text'; the parts"):
        dispatched(alignment_model(), {"towers.image": "cpu"})
    with pytest.raises(UserError, match="it is 'auto' or names submodules"):
        dispatched(alignment_model(), "balanced")
