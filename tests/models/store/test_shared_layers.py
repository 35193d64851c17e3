"""Towers that share layers: one set of weights, saved once, and found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from plait.core.errors import ModelError
from plait.encoders.base.base import Encoder
from plait.encoders.compose.sharing import separate_blocks, share_blocks, shared_layers
from plait.encoders.registry import build_encoder
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.heads import Head
from plait.models.base.projection import build_projection
from plait.models.fusion.joints import build_joint
from plait.models.fusion.model import FusionModel
from plait.models.store.files import weights_fingerprint
from plait.models.store.shared_layers import other_names, parameter_count, separated
from plait.models.store.storage import load_model, save_model

WIDTH, HEADS = 12, 2
BLOCK = 12 * WIDTH**2 + 13 * WIDTH  # 4 D^2 + 4 D of attention, 8 D^2 + 5 D of the MLP, 4 D of norms


def towers(image: dict[str, Any] | None = None, text: dict[str, Any] | None = None) -> Any:
    shape = {"width": WIDTH, "heads": HEADS, "layers": 2}
    torch.manual_seed(0)
    size = {"image_size": 16, "patch_size": 4}
    return {
        "image": build_encoder(
            "scratch/vit", modality="image", **{**size, **shape, **(image or {})}
        ),
        "text": build_encoder("scratch/transformer", modality="text", **{**shape, **(text or {})}),
    }


def alignment(count: int) -> AlignmentModel:
    encoders: dict[str, Encoder] = towers()
    share_blocks(encoders, count)
    return AlignmentModel(
        {n: Tower(e, build_projection("linear", e.width, 6)) for n, e in encoders.items()}
    ).eval()


def fusion(count: int) -> FusionModel:
    encoders: dict[str, Encoder] = towers()
    share_blocks(encoders, count)
    joint = build_joint("concat", encoders, 8)
    return FusionModel(encoders, joint, {"answer": Head(joint.width, ("yes", "no"))}).eval()


@pytest.mark.parametrize("make", [alignment, fusion])
def test_each_shared_block_saves_its_own_parameters(make: Any) -> None:
    whole = parameter_count(make(0))
    assert [whole - parameter_count(make(k)) for k in (0, 1, 2)] == [0, BLOCK, 2 * BLOCK]
    for count in (0, 1, 2):
        model = make(count)
        encoders = {name: model.tower(name).encoder for name in model.modalities}
        assert shared_layers(encoders) == count


def test_a_gradient_of_both_towers_meets_in_a_shared_block() -> None:
    encoders = towers()
    share_blocks(encoders, 1)
    shared = encoders["image"].blocks[0].mlp.up.weight
    assert encoders["text"].blocks[0].mlp.up.weight is shared
    x = torch.randn(2, 3, WIDTH)
    totals = [encoders[name].blocks[0](x).square().sum() for name in ("image", "text")]
    (one,) = torch.autograd.grad(totals[0], shared, retain_graph=True)
    (both,) = torch.autograd.grad(sum(totals), shared)
    torch.testing.assert_close(both, 2 * one)


def test_separated_models_compute_the_same_and_go_their_own_ways(
    pictures: list[np.ndarray],
) -> None:
    model = alignment(2)
    apart = separated(model)
    assert isinstance(apart, AlignmentModel)
    assert weights_fingerprint(apart) == weights_fingerprint(model)
    assert parameter_count(apart) == parameter_count(alignment(0))
    before = model.embed(pictures, ["a cat"])
    with torch.no_grad():
        for parameter in apart.tower("image").encoder.parameters():
            parameter.zero_()
    assert np.array_equal(apart.embed(texts=["a cat"])["text"], before["text"])
    assert np.array_equal(model.embed(pictures)["image"], before["image"])
    encoders = towers()
    separate_blocks(encoders)  # nothing was shared
    assert shared_layers(encoders) == 0


@pytest.mark.parametrize("make", [alignment, fusion])
def test_the_weights_file_holds_a_shared_block_once(make: Any, tmp_path: Path) -> None:
    model = make(1)
    save_model(model, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert sum(value.numel() for value in saved.values()) == parameter_count(model)
    assert not [name for name in saved if name.startswith("towers.text.encoder.blocks.0")]
    assert json.loads((tmp_path / "model.json").read_text())["shared_layers"] == 1
    again = load_model(tmp_path)
    assert weights_fingerprint(again) == weights_fingerprint(model)
    blocks = [again.tower(name).encoder.blocks for name in ("image", "text")]
    assert blocks[0][0] is blocks[1][0] and blocks[0][1] is not blocks[1][1]


def test_models_without_sharing_are_written_as_before(tmp_path: Path) -> None:
    save_model(alignment(0), tmp_path)
    spec = json.loads((tmp_path / "model.json").read_text())
    assert spec["version"] == 1 and "shared_layers" not in spec


def test_weights_that_are_missing_or_stand_twice_are_told(tmp_path: Path) -> None:
    model = alignment(1)
    save_model(model, tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    again = other_names(model)
    name, first = next(iter(again.items()))
    assert name.startswith("towers.text.encoder.blocks.0.")
    save_file({**weights, name: weights[first].clone()}, path)
    with pytest.raises(ModelError, match=f"1 weights are left over .first '{name}'"):
        load_model(tmp_path)
    save_file({key: value for key, value in weights.items() if key != first}, path)
    with pytest.raises(ModelError, match=f"1 weights are missing .first '{first}'"):
        load_model(tmp_path)


def test_what_cannot_be_shared_is_told_with_the_mend() -> None:
    with pytest.raises(ModelError, match=r"text tower has only 2 of them.* to at most 2"):
        share_blocks(towers(image={"layers": 3}), 3)
    with pytest.raises(ModelError, match=r"block 1 of the text tower .*\(heads 3 and 2\).* to 0"):
        share_blocks(towers(text={"heads": 3}), 1)
    with pytest.raises(ModelError, match=r"\(width 8, hidden 32 and width|width 8 and 12"):
        share_blocks(towers(text={"width": 8}), 2)
    without = towers()
    without["image"] = build_encoder("scratch/cnn", modality="image", size=16, widths=[8, 12])
    with pytest.raises(ModelError, match=r"image tower \(CnnEncoder\) has no transformer blocks"):
        share_blocks(without, 1)
    share_blocks(without, 0)
