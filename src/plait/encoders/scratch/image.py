"""Small image encoders without pretrained weights: ``scratch/vit-tiny`` and ``scratch/cnn``.

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.modality import IMAGE
from plait.encoders.base.base import Encoder, PixelNorm
from plait.encoders.base.regions import boxes_for, sides
from plait.encoders.clip.vision import ClipVision, VisionConfig
from plait.modalities.image.preprocess import ImagePreprocess

HALF = (0.5, 0.5, 0.5)


def scratch_preprocess(size: int) -> ImagePreprocess:
    """The whole picture squashed into a square, pixels in -1 to 1."""
    return ImagePreprocess(size=size, resize="squash", mean=HALF, std=HALF)


def vit(
    *, size: int = 64, patch: int = 8, width: int = 192, layers: int = 6, heads: int = 3
) -> ClipVision:
    """A small vision transformer with CLIP's stem and mean pooling over patches."""
    config = VisionConfig(
        (size, size), patch, width, layers, heads, 4 * width, act="gelu", pool="mean"
    )
    return ClipVision(config, scratch_preprocess(size))


class _Stage(nn.Module):
    """Halves height and width; then one residual depthwise-separable step (ConvNeXt's order)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, width, stride, stride)
        self.spatial = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(1, width)  # no batch statistics: answers don't depend on company
        self.up = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        inner = nn.functional.gelu(self.up(self.norm(self.spatial(x))))
        out: torch.Tensor = x + self.project(inner)
        return out


class CnnEncoder(Encoder):
    """A small convolutional network; tokens are the cells of its last grid, pooled by the mean.

    Args:
        widths: features of each stage; the first divides height and width by 4, others by 2.
        preprocess: how pictures become pixels.
    """

    modality = IMAGE
    preprocess: ImagePreprocess

    def __init__(self, widths: Sequence[int], preprocess: ImagePreprocess) -> None:
        super().__init__()
        self.widths, self.preprocess = list(widths), preprocess
        self.normalise = PixelNorm(preprocess.mean, preprocess.std)
        before = [3, *self.widths[:-1]]
        self.stages = nn.Sequential(
            *(_Stage(a, b, 4 if i == 0 else 2) for i, (a, b) in enumerate(zip(before, self.widths)))
        )
        self.norm = nn.LayerNorm(self.widths[-1])
        self.width = self.token_width = self.widths[-1]

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``pixels`` (B, 3, H, W), uint8, or float 0 to 1."""
        grid = self.stages(self.normalise(inputs.tensors["pixels"]))
        tokens = self.norm(grid.flatten(2).transpose(1, 2))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        boxes = boxes_for(tokens, *sides(grid.shape[-2:]))
        return Encoded(tokens, mask, tokens.mean(dim=1), boxes)

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "scratch",
            "kind": "cnn",
            "widths": self.widths,
            "preprocess": self.preprocess.to_json(),
        }


def cnn(*, size: int = 64, widths: Sequence[int] = (48, 96, 192, 384)) -> CnnEncoder:
    """A small convolutional encoder."""
    return CnnEncoder(widths, scratch_preprocess(size))


def rebuild_cnn(spec: dict[str, Any], folder: Path) -> CnnEncoder:
    """The architecture of a spec, without weights."""
    return CnnEncoder(spec["widths"], ImagePreprocess.from_json(spec["preprocess"]))
