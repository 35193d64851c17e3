from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.compression.made import made, outputs, pictures, words
from torch import nn

from plait.compression.cost import multiply_adds
from plait.compression.prune import _choose, prune
from plait.compression.units import Group, groups_of
from plait.core.errors import ModelError, UserError
from plait.encoders.base.base import Encoder
from plait.encoders.compose.narrowed import narrowed
from plait.encoders.registry import build_encoder, encoder_from_spec

CASES = {
    "cnn": ("scratch/cnn", "image", {"size": 32, "widths": [8, 16]}),
    "vit": ("scratch/vit", "image", {"image_size": 32, "width": 24, "layers": 2, "heads": 3}),
    "transformer": ("scratch/transformer", "text", {"width": 24, "layers": 2, "heads": 3}),
    "efficientnet": ("timm/test_efficientnet", "image", {"size": 64}),
    "resnet": ("timm/test_resnet", "image", {"size": 64}),
    "timm vit": ("timm/test_vit", "image", {"size": 64}),
    "joined": ("join/scratch/cnn+scratch/cnn", "image", {"size": 32}),
}


@pytest.fixture(params=CASES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    source, modality, options = CASES[request.param]
    return made(source, modality, **options)


def inputs_of(encoder: Encoder) -> dict[str, np.ndarray]:
    if encoder.modality == "text":
        return words(encoder)
    return pictures(encoder.preprocess.size_2d[0])


def test_every_kind_loses_the_share_asked_for_and_is_stored(
    encoder: Encoder, tmp_path: Path
) -> None:
    inputs = inputs_of(encoder)
    before = outputs(encoder, inputs)
    share = 0.1  # the stems of small networks are most of their cost
    found = prune(encoder, share, [inputs])
    assert found.before == multiply_adds(encoder, inputs)
    assert found.after == multiply_adds(found.encoder, inputs)
    assert (1 - 1.8 * share) * found.before < found.after < (1 - 0.6 * share) * found.before
    torch.testing.assert_close(outputs(encoder, inputs), before)  # the original is as it was
    spec = json.loads(json.dumps(found.encoder.spec()))
    found.encoder.save_files(tmp_path)
    again = encoder_from_spec(spec, tmp_path)
    again.load_state_dict(found.encoder.state_dict())
    torch.testing.assert_close(outputs(again, inputs), outputs(found.encoder, inputs))
    cosine = nn.functional.cosine_similarity(outputs(again, inputs), before)
    assert cosine.min() > 0.7


def test_pruning_twice_narrows_further(tmp_path: Path) -> None:
    encoder = made("scratch/cnn", size=32, widths=[8, 16])
    inputs = pictures(32)
    once = prune(encoder, 0.1, [inputs])
    twice = prune(once.encoder, 0.1, [inputs])
    assert twice.after < 0.95 * once.after
    again = encoder_from_spec(twice.encoder.spec(), tmp_path)
    again.load_state_dict(twice.encoder.state_dict())
    torch.testing.assert_close(outputs(again, inputs), outputs(twice.encoder, inputs))


def block(encoder: Encoder, name: str) -> nn.Module:
    return encoder.get_submodule(name)


def test_units_that_do_nothing_go_first_and_nothing_changes() -> None:
    """Half of the hidden units give zero (weights and bias zero, gelu(0) = 0)."""
    encoder = made("scratch/cnn", size=32, widths=[8, 16])
    dead = {}
    with torch.no_grad():
        for number, width in enumerate((16, 32)):
            up = block(encoder, f"stages.{number}.up")
            dead[number] = list(range(0, width, 2))
            up.weight[dead[number]] = 0
            up.bias[dead[number]] = 0
    inputs = pictures(32)
    share = 0.15  # of all multiply-adds, less than the dead units cost
    found = prune(encoder, share, [inputs])
    torch.testing.assert_close(
        outputs(found.encoder, inputs), outputs(encoder, inputs), atol=2e-3, rtol=1e-3
    )


def test_the_reader_makes_up_for_a_twin() -> None:
    """Units come in equal pairs: one of each may go, if the reader adds their columns."""
    encoder = made("scratch/cnn", size=32, widths=[8, 16])
    with torch.no_grad():
        for number in (0, 1):
            up = block(encoder, f"stages.{number}.up")
            half = up.out_channels // 2
            up.weight[half:], up.bias[half:] = up.weight[:half], up.bias[:half]
            # The twins are read faintly, so that they are the ones to go.
            block(encoder, f"stages.{number}.project").weight[:, half:] *= 0.3
    inputs = pictures(32)
    found = prune(encoder, 0.12, [inputs])
    assert sum(before - kept for kept, before in found.kept.values()) >= 3
    torch.testing.assert_close(
        outputs(found.encoder, inputs), outputs(encoder, inputs), atol=2e-2, rtol=2e-2
    )


def test_a_head_that_nobody_reads_goes() -> None:
    encoder = made("scratch/vit", image_size=32, width=24, layers=1, heads=3)
    with torch.no_grad():
        block(encoder, "blocks.0.attention.out").weight[:, 8:16] = 0
    inputs = pictures(32)
    heads = [g for g in groups_of(encoder) if g.attention is not None]
    assert [(g.units, g.width) for g in heads] == [(3, 8)]
    found = prune(encoder, 0.05, [inputs])
    assert found.kept["blocks.0.attention.out"] == (2, 3)
    assert found.encoder.inner.blocks[0].attention.heads == 2
    torch.testing.assert_close(
        outputs(found.encoder, inputs), outputs(encoder, inputs), atol=2e-3, rtol=2e-3
    )


def test_heads_of_bert(tmp_path: Path) -> None:
    from tests.encoders.conftest import write_bert

    folder = write_bert(tmp_path)
    encoder = build_encoder(f"hf/{folder}", modality="text")
    inputs = words(encoder)
    assert {g.attention is None for g in groups_of(encoder)} == {True, False}
    found = prune(encoder, 0.3, [inputs])
    again = encoder_from_spec(found.encoder.spec(), _saved(found.encoder, tmp_path / "saved"))
    again.load_state_dict(found.encoder.state_dict())
    torch.testing.assert_close(outputs(again, inputs), outputs(found.encoder, inputs))
    padded = {name: np.pad(value, ((0, 0), (0, 3))) for name, value in inputs.items()}
    torch.testing.assert_close(outputs(again, padded), outputs(again, inputs))


def _saved(encoder: Encoder, folder: Path) -> Path:
    encoder.save_files(folder)
    return folder


def test_refusals() -> None:
    encoder = made("scratch/cnn", size=32, widths=[8, 16])
    with pytest.raises(UserError, match=r"--prune 1\.5: give the share"):
        prune(encoder, 1.5, [pictures(32)])
    with pytest.raises(UserError, match=r"the image encoder's blocks can spare"):
        prune(encoder, 0.95, [pictures(32)])
    with pytest.raises(ModelError, match=r"no module 'stages\.9\.up'"):
        narrowed(encoder, {"stages.9.up": {"out_channels": 2}})
    with pytest.raises(ModelError, match="a Conv2d has no height to be narrowed"):
        narrowed(encoder, {"stages.1.up": {"height": 2}})


def test_units_go_by_their_share_for_each_multiply_add() -> None:
    """By hand: the dear group's units save ten each at a share of 0.5, the cheap one's save one at
    0.4 and 0.6. Ten multiply-adds are saved with the least harm by one dear unit (0.05 each), not
    by the cheap unit of least share (0.4) and a dear one."""
    cheap, dear = (Group(((f"{n}.make", 1),), f"{n}.read", 2) for n in ("cheap", "dear"))
    costs = {"cheap.make": 1.0, "cheap.read": 1.0, "dear.make": 10.0, "dear.read": 10.0}
    shares = [torch.tensor([0.4, 0.6]), torch.tensor([0.5, 0.5])]
    assert _choose([cheap, dear], shares, costs, 10.0, "image") == [set(), {0}]
    assert _choose([cheap, dear], shares, costs, 10.5, "image") == [{0}, {0}]
