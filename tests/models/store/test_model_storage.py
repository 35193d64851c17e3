"""Saving and loading: one folder, movable, offline, exact about what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from plait.core.errors import ModelError
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.files import weights_fingerprint
from plait.models.store.storage import load_model, save_model
from plait.nn.adapt import merge_lora, set_trainable

TEXTS = ["a cat", "猫"]


def test_round_trip_and_moving(
    model: AlignmentModel, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    model.log_scale.data.fill_(3.0)
    save_model(model, tmp_path / "one")
    shutil.move(tmp_path / "one", tmp_path / "two")
    again = load_model(tmp_path / "two")
    assert not again.training
    assert weights_fingerprint(again) == weights_fingerprint(model)
    before, after = model.embed(pictures, TEXTS), again.embed(pictures, TEXTS)
    for name in before:
        assert np.array_equal(before[name], after[name])
    assert again.scale.item() == model.scale.item()
    kinds = {file.suffix for file in (tmp_path / "two").rglob("*") if file.is_file()}
    assert kinds == {".json", ".safetensors"}
    text = (tmp_path / "two" / "model.json").read_text()
    assert str(tmp_path) not in text


def test_bias_and_unlimited_scale_come_back(model: AlignmentModel, tmp_path: Path) -> None:
    towers = {name: model.tower(name) for name in model.modalities}
    sigmoid = AlignmentModel(towers, scale_init=10.0, max_scale=None, bias_init=-10.0)
    sigmoid.log_scale.data.fill_(5.0)
    save_model(sigmoid, tmp_path)
    again = load_model(tmp_path)
    assert again.bias is not None and again.bias.item() == -10
    assert again.max_scale is None
    assert again.scale.item() == pytest.approx(np.exp(5.0))


def test_adapters_are_merged_on_saving(
    model: AlignmentModel, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    for name in model.modalities:
        set_trainable(model.tower(name).encoder, "lora", rank=2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    before, after = model.embed(pictures, TEXTS), again.embed(pictures, TEXTS)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], atol=1e-6)
    merge_lora(model)
    assert weights_fingerprint(model) == weights_fingerprint(again)


def test_fingerprint_sees_every_weight(model: AlignmentModel) -> None:
    before = weights_fingerprint(model)
    assert weights_fingerprint(model) == before
    for parameter in list(model.parameters())[:3]:
        old = parameter.data.clone()
        parameter.data.view(-1)[-1] += 1e-3
        assert weights_fingerprint(model) != before
        parameter.data.copy_(old)
    assert weights_fingerprint(model) == before
    assert weights_fingerprint(model.double()) != before


def _edit(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        if path.suffix == ".json":
            value = json.loads(path.read_text())
            change(value)
            path.write_text(json.dumps(value))
        else:
            weights = load_file(path)
            change(weights)
            save_file(weights, path)

    return edit


LINEAR = "towers.image.projection.linear.weight"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "model.json").unlink(), "is no plait model: it has no model.json"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "model.json").write_text("{"), "model.json is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "safetensors is damaged"),
        (lambda f: (f / "text" / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (_edit("model.json", lambda v: v.update(version=9)), "version 9, this plait reads up to 4"),
        (_edit("model.json", lambda v: v.update(format="x")), "doesn't describe a plait model"),
        (_edit("model.json", lambda v: v.update(kind="nothing")), "of an unknown kind, 'nothing'"),
        (_edit("model.json", lambda v: v.pop("towers")), "lacks 'towers'"),
        (
            _edit("model.safetensors", lambda w: w.pop(LINEAR)),
            rf"1 weights are missing \(first '{LINEAR}'\)",
        ),
        (
            _edit("model.safetensors", lambda w: w.update(extra=torch.zeros(1))),
            r"1 weights are left over \(first 'extra'\)",
        ),
        (
            _edit("model.safetensors", lambda w: w.update({LINEAR: torch.zeros(2, 2)})),
            r"another shape \(first .*\(2, 2\) for \(6, 12\)",
        ),
    ],
)
def test_what_is_broken_is_named(
    model: AlignmentModel, tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    save_model(model, tmp_path)
    break_it(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)
