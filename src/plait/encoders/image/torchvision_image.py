"""Images through torchvision's classifiers: ResNet, ConvNeXt, ViT, Swin, MobileNet and others.

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import ModelError, did_you_mean
from plait.core.modality import IMAGE
from plait.encoders.base.base import (
    Encoder,
    Example,
    Family,
    PixelNorm,
    check_modality,
    check_options,
)
from plait.encoders.base.image_processor import adjusted
from plait.encoders.base.regions import boxes_for, sides
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.preprocess_sources import preprocess_from_torchvision
from plait.nn.pooling import Pool

OPTIONS = ("pool", "size", "resize")


class TorchvisionEncoder(Encoder):
    """An image encoder around a torchvision classifier, read before its final average pooling.

    Args:
        trunk: pixels to a grid (B, D, h, w), or to tokens (B, N, D).
        name: torchvision's name of the model.
        preprocess: how pictures become pixels, mean and std included.
        pool: see `Pool`; ``mean`` is what convolutional classifiers do, ``cls`` what ViT does.
    """

    modality = IMAGE
    preprocess: ImagePreprocess

    def __init__(
        self, trunk: nn.Module, name: str, preprocess: ImagePreprocess, *, pool: str
    ) -> None:
        super().__init__()
        self.trunk, self.name, self.preprocess, self.pool_kind = trunk, name, preprocess, pool
        self.normalise = PixelNorm(preprocess.mean, preprocess.std)
        self.pool = Pool(pool, skip=1 if isinstance(trunk, _VitTrunk) else 0)
        height, width = preprocess.size_2d
        trunk.eval()
        with torch.no_grad():
            self.token_width = self._tokens(torch.zeros(1, 3, height, width))[0].shape[-1]
        self.width = self.token_width * len(self.pool.kinds)

    def _tokens(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(tokens, rows and columns of their grid)."""
        features: Tensor = self.trunk(pixels)
        if isinstance(self.trunk, _VitTrunk):
            (height, width), patch = sides(pixels.shape[-2:]), self.trunk.conv_proj.stride
            return features, (height // patch[0], width // patch[1])
        return features.flatten(2).transpose(1, 2), sides(features.shape[-2:])

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``pixels`` (B, 3, H, W), uint8, or float 0 to 1."""
        tokens, grid = self._tokens(self.normalise(inputs.tensors["pixels"]))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Encoded(tokens, mask, self.pool(tokens, mask), boxes_for(tokens, *grid))

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "torchvision",
            "name": self.name,
            "preprocess": self.preprocess.to_json(),
            "pool": self.pool_kind,
        }


class _VitTrunk(nn.Module):
    """torchvision's VisionTransformer up to its final norm."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_proj, self.encoder = model.conv_proj, model.encoder
        self.class_token = model.class_token

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv_proj(pixels).flatten(2).transpose(1, 2)
        tokens: Tensor = self.encoder(
            torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        )
        return tokens


def _trunk(model: Any, name: str) -> nn.Module:
    """The part of a classifier that yields a grid or tokens."""
    if hasattr(model, "conv_proj") and hasattr(model, "class_token"):
        return _VitTrunk(model)
    if hasattr(model, "layer4"):  # ResNet, ResNeXt, Wide ResNet
        stages = list(model.named_children())
        return nn.Sequential(dict_of(stages[: [n for n, _ in stages].index("avgpool")]))
    if hasattr(model, "features"):
        parts = [("features", model.features)]
        for extra in ("norm", "permute"):  # Swin normalises and permutes after its features
            if hasattr(model, extra):
                parts.append((extra, getattr(model, extra)))
        if type(model).__name__ == "DenseNet":
            parts.append(("relu", nn.ReLU()))  # in its forward, outside its features
        return nn.Sequential(dict_of(parts))
    raise ModelError(f"torchvision/{name} has no trunk that plait can read; try timm/")


def dict_of(parts: list[tuple[str, nn.Module]]) -> Any:
    """An OrderedDict, as nn.Sequential wants it to keep names."""
    from collections import OrderedDict

    return OrderedDict(parts)


def _weights(name: str) -> Any:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classifier {name!r}{did_you_mean(name, known)}")
    return models.get_model_weights(name).DEFAULT


def preprocess_of(name: str) -> ImagePreprocess:
    """The evaluation transform of the model's default weights."""
    return preprocess_from_torchvision(_weights(name).transforms())


def _create(name: str, pretrained: bool) -> nn.Module:
    from torchvision import models

    weights = _weights(name) if pretrained else None
    try:
        return _trunk(models.get_model(name, weights=weights), name)
    except OSError as problem:
        raise ModelError(
            f"the weights of torchvision/{name} cannot be fetched ({problem}); check the"
            " connection, or use a packaged encoder such as pkg/efficientnet-lite0"
        ) from problem


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """``torchvision/NAME``; options ``pool``, ``size`` (pixels) and ``resize``."""
    check_modality(f"torchvision/{name}", modality, (IMAGE,))
    check_options(f"torchvision/{name}", options, OPTIONS)
    preprocess = adjusted(preprocess_of(name), options.get("size"), options.get("resize"))
    trunk = _create(name, pretrained)
    natural = "cls" if isinstance(trunk, _VitTrunk) else "mean"
    return TorchvisionEncoder(trunk, name, preprocess, pool=options.get("pool", natural))


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec, without weights."""
    preprocess = ImagePreprocess.from_json(spec["preprocess"])
    trunk = _create(spec["name"], pretrained=False)
    return TorchvisionEncoder(trunk, spec["name"], preprocess, pool=spec["pool"])


FAMILY = Family(
    prefix="torchvision",
    build=build,
    rebuild=rebuild,
    help="a classifier of torchvision",
    examples=(Example("torchvision/resnet18", IMAGE, {"size": 32}),),
)
