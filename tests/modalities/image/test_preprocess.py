"""`ImagePreprocess` against torchvision, timm and transformers at the same settings."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plait.core.errors import ModelError, RecipeError
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.preprocess_sources import (
    preprocess_from_timm,
    preprocess_from_torchvision,
    preprocess_from_transformers,
)


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with fine grain, as in a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.integers(-10, 11, (height, width, 3))
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


SIZES = [(60, 91), (91, 60), (64, 64), (33, 150), (200, 41), (37, 38), (1, 5), (301, 300)]


def differences(left: np.ndarray, right: Any) -> int:
    right = np.asarray(right)
    assert left.shape == right.shape
    return int(np.abs(left.astype(int) - right.astype(int)).max())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "crop"), [(64, 56), (58, 45), (40, 40)])
def test_as_torchvision(size: int, crop: int, interpolation: str) -> None:
    from torchvision.transforms import InterpolationMode, v2

    theirs = v2.Compose(
        [
            v2.Resize(size, interpolation=InterpolationMode(interpolation)),
            v2.CenterCrop(crop),
            v2.PILToTensor(),
        ]
    )
    ours = ImagePreprocess(crop, crop_fraction=crop / size, interpolation=interpolation)
    for shape in SIZES:
        array = photograph(*shape)
        assert differences(ours(array), theirs(Image.fromarray(array))) == 0, shape


def test_crop_beyond_the_picture_as_torchvision() -> None:
    from torchvision.transforms import v2

    for shape in [(5, 8), (9, 4), (6, 7), (20, 3)]:
        array = photograph(*shape)
        theirs = v2.functional.center_crop(Image.fromarray(array), [9, 8])
        np.testing.assert_array_equal(ImagePreprocess((9, 8)).crop(array), np.asarray(theirs))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(48, 48), (48, 32)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 0.9])
def test_as_timm(size: tuple[int, int], mode: str, crop_pct: float) -> None:
    from timm.data import create_transform

    config = {
        "input_size": (3, *size),
        "crop_pct": crop_pct,
        "crop_mode": mode,
        "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.2),
    }
    theirs = create_transform(**config, is_training=False, normalize=False)
    ours = preprocess_from_timm(config)
    for shape in SIZES:
        array = photograph(*shape)
        assert differences(ours(array), theirs(Image.fromarray(array))) == 0, shape


def test_scaled_size_of_every_model_of_timm() -> None:
    import timm
    from timm.models import get_pretrained_cfg

    checked = 0
    for name in timm.list_pretrained()[::7]:
        config = get_pretrained_cfg(name).to_dict()
        ours = preprocess_from_timm(config)
        expected = tuple(math.floor(edge / config["crop_pct"]) for edge in config["input_size"][1:])
        assert ours.scaled_size == expected, name
        checked += 1
    assert checked > 100


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "efficientnet_v2_s", "regnet_y_400mf"])
def test_from_the_weights_of_torchvision(name: str) -> None:
    from torchvision import models

    theirs = models.get_model_weights(name).DEFAULT.transforms()
    ours = preprocess_from_torchvision(theirs)
    array = photograph(301, 260)
    normalised = np.asarray(theirs(Image.fromarray(array)))
    mean, std = (np.array(values)[:, None, None] for values in (ours.mean, ours.std))
    assert differences(ours(array), np.rint((normalised * std + mean) * 255)) == 0


def transformers_pixels(kind: str, config: dict[str, Any], array: np.ndarray) -> np.ndarray:
    import transformers

    config = config | {"do_rescale": False, "do_normalize": False}
    processor = getattr(transformers, kind)(**config)
    return np.asarray(processor(Image.fromarray(array), return_tensors="np")["pixel_values"][0])


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("CLIPImageProcessor", {"size": {"shortest_edge": 48}, "crop_size": 48}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 64}, "crop_size": 45}),
        ("SiglipImageProcessor", {"size": {"height": 48, "width": 40}}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
        ("BitImageProcessor", {"size": {"shortest_edge": 64}, "crop_size": 56}),
        ("DeiTImageProcessor", {"size": {"height": 64, "width": 64}, "crop_size": 56}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 56}, "crop_pct": 0.875}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}),
        (
            "PoolFormerImageProcessor",
            {"size": {"shortest_edge": 56}, "crop_pct": 0.9, "crop_size": 56},
        ),
        ("LevitImageProcessor", {"size": {"shortest_edge": 56}, "crop_size": 56}),
    ],
)
def test_as_transformers(kind: str, config: dict[str, Any]) -> None:
    import transformers

    written = getattr(transformers, kind)(**config).to_dict()
    ours = preprocess_from_transformers(json.loads(json.dumps(written)))
    for shape in [shape for shape in SIZES if min(shape) > 1]:
        array = photograph(*shape)
        found = ours(array).astype(int)
        theirs = transformers_pixels(kind, config, array).astype(int)
        assert found.shape == theirs.shape
        # They resize by torch's integer kernel, whose bicubic differs from Pillow's by two
        # levels in a few pixels of a hundred thousand (see `plait.modalities.image.fast_decode`).
        assert np.abs(found - theirs).max() <= 2, shape
        assert (np.abs(found - theirs) > 1).mean() < 1e-3, shape


def test_statistics_of_transformers() -> None:
    plain = preprocess_from_transformers(
        {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    )
    assert plain.mean == (0.5, 0.5, 0.5) and plain.size == (32, 32) and plain.resize == "squash"
    # (x / 127.5 - 1) / 0.5 at x = 255 is 2; here (x / 255 - m) / s.
    other = preprocess_from_transformers(
        {"size": 32, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [0.5] * 3}
    )
    assert (1 - other.mean[0]) / other.std[0] == pytest.approx(2)
    raw = preprocess_from_transformers({"size": 32, "do_normalize": False, "do_rescale": False})
    assert (1 - raw.mean[0]) / raw.std[0] == pytest.approx(255)


@pytest.mark.parametrize(
    "config",
    [
        {"size": {"shortest_edge": 224}},
        {"size": {"longest_edge": 224}},
        {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 112}},
        {"size": {"height": 64, "width": 64}, "crop_size": {"height": 32, "width": 64}},
    ],
)
def test_what_cannot_be_expressed_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        preprocess_from_transformers(config)


def test_padding_keeps_the_whole_picture_on_white() -> None:
    array = np.zeros((10, 20, 3), np.uint8)
    result = ImagePreprocess(20, resize="pad")(array)
    np.testing.assert_array_equal(result[:, :5], 255)
    np.testing.assert_array_equal(result[:, 5:15], 0)
    np.testing.assert_array_equal(result[:, 15:], 255)


# Made in the tests, not in the strategy: the run-time type checker draws random numbers.
preprocesses = st.fixed_dictionaries(
    {
        "size": st.tuples(st.integers(1, 40), st.integers(1, 40)),
        "resize": st.sampled_from(["shortest", "squash", "pad"]),
        "crop_fraction": st.floats(0.3, 1),
        "interpolation": st.sampled_from(["nearest", "box", "bilinear", "bicubic", "lanczos"]),
        "crop_rounding": st.sampled_from(["even", "down"]),
    }
)


@settings(deadline=None)
@given(preprocesses, st.integers(1, 60), st.integers(1, 60))
def test_any_picture_gets_the_asked_shape(values: dict[str, Any], height: int, width: int) -> None:
    preprocess = ImagePreprocess(**values)
    result = preprocess(np.full((height, width, 3), 255, np.uint8))
    assert result.shape == (3, *preprocess.size_2d) and result.dtype == np.uint8
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, 255)  # white stays white; padding is white


@settings(deadline=None)
@given(preprocesses)
def test_json_and_fingerprint_round_trip(values: dict[str, Any]) -> None:
    preprocess = ImagePreprocess(**values)
    again = ImagePreprocess.from_json(json.loads(json.dumps(preprocess.to_json())))
    assert again == preprocess and again.fingerprint == preprocess.fingerprint


def test_fingerprints_tell_settings_apart() -> None:
    base = ImagePreprocess(224)
    assert ImagePreprocess((224, 224)).fingerprint == base.fingerprint
    changes = [
        ImagePreprocess(225),
        ImagePreprocess(224, resize="pad"),
        ImagePreprocess(224, crop_fraction=0.9),
        ImagePreprocess(224, interpolation="bicubic"),
        ImagePreprocess(224, crop_rounding="down"),
        ImagePreprocess(224, fill=(0, 0, 0)),
    ]
    assert len({entry.pixels_fingerprint for entry in [base, *changes]}) == 7
    normalised = ImagePreprocess(224, mean=(0.0, 0.0, 0.0))
    assert normalised.fingerprint != base.fingerprint
    assert normalised.pixels_fingerprint == base.pixels_fingerprint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": [0, 5]}, r"size .* \(0, 5\)"),
        ({"crop_fraction": 0.0}, "crop_fraction .* above 0"),
        ({"resize": "shortes"}, "did you mean 'shortest'"),
        ({"interpolation": "cubic"}, "interpolation .* 'cubic'"),
        ({"mean": [0.5]}, "mean .* three numbers"),
        ({"std": [0.0, 1.0, 1.0]}, "std .* positive"),
        ({"sizes": 5}, "no setting 'sizes'; did you mean 'size'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        ImagePreprocess.from_json(settings)
