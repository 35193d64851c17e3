"""``scratch/vit``: a vision transformer of the same blocks as ``scratch/transformer``.

Towers of these two can share their lower layers, see `plait.encoders.compose.sharing`.

Sources: Dosovitskiy et al. 2021 (patches as tokens); Beyer et al. 2022, "Better plain ViT baselines
for ImageNet-1k" (the mean over patches in place of a class token).
Shape legend: B samples, N patches, D features, H and W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.core.modality import IMAGE
from plait.encoders.base.base import Encoder, PixelNorm
from plait.encoders.base.regions import boxes_for
from plait.encoders.scratch.image import scratch_preprocess
from plait.modalities.image.preprocess import ImagePreprocess
from plait.nn.transformer import Block, initialise


class VitEncoder(Encoder):
    """Patches as tokens, pre-norm blocks, and the mean over patches.

    Args:
        preprocess: how pictures become pixels; its size is that of the pictures.
        patch_size: side of a patch in pixels.
        width, layers, heads: of the transformer.

    Raises:
        ModelError: a size that is no multiple of the patch, or a width that is none of the heads.
    """

    modality = IMAGE
    preprocess: ImagePreprocess

    def __init__(
        self,
        preprocess: ImagePreprocess,
        *,
        patch_size: int = 8,
        width: int = 192,
        layers: int = 4,
        heads: int = 3,
    ) -> None:
        super().__init__()
        height, across = preprocess.size_2d
        if height % patch_size or across % patch_size:
            raise ModelError(
                f"scratch/vit: pictures of {height} x {across} pixels cannot be cut into patches of "
                f"{patch_size} x {patch_size}: make image_size a multiple of patch_size"
            )
        self.preprocess, self.patch_size = preprocess, patch_size
        self.layers, self.heads = layers, heads
        self.grid = height // patch_size, across // patch_size
        self.width = self.token_width = width
        self.normalise = PixelNorm(preprocess.mean, preprocess.std)
        self.patch = nn.Conv2d(3, width, patch_size, patch_size)
        self.position = nn.Parameter(0.02 * torch.randn(self.grid[0] * self.grid[1], width))
        self.blocks = nn.ModuleList(
            Block(width, heads, 4 * width, "gelu", 1e-5) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        initialise(self.blocks, width)

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``pixels`` (B, 3, H, W) of the encoder's size, uint8, or float 0 to 1."""
        pixels = inputs.tensors["pixels"]
        if tuple(pixels.shape[-2:]) != self.preprocess.size_2d:
            shown = " x ".join(str(int(side)) for side in pixels.shape[-2:])
            wanted = " x ".join(str(side) for side in self.preprocess.size_2d)
            raise DataError(f"this image tower takes {wanted} pixels, not {shown}")
        x = self.patch(self.normalise(pixels)).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Encoded(tokens, mask, tokens.mean(dim=1), boxes_for(tokens, *self.grid))

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "scratch",
            "kind": "vit",
            "patch_size": self.patch_size,
            "width": self.width,
            "layers": self.layers,
            "heads": self.heads,
            "preprocess": self.preprocess.to_json(),
        }


def vit(
    *, image_size: int = 64, patch_size: int = 8, width: int = 192, layers: int = 4, heads: int = 3
) -> VitEncoder:
    """A small vision transformer for square pictures of ``image_size`` pixels."""
    return VitEncoder(
        scratch_preprocess(image_size),
        patch_size=patch_size,
        width=width,
        layers=layers,
        heads=heads,
    )


def rebuild(spec: dict[str, Any], folder: Path) -> VitEncoder:
    """The architecture of a spec, without weights."""
    settings = {k: v for k, v in spec.items() if k not in ("family", "kind", "preprocess")}
    return VitEncoder(ImagePreprocess.from_json(spec["preprocess"]), **settings)
