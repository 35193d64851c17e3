"""The image tower of CLIP and SigLIP: a vision transformer.

Sources: Radford et al. 2021 (CLIP); Zhai et al. 2023 (SigLIP).
Shape legend: B samples, N positions, D features, P pixels of a patch's side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.core.modality import IMAGE
from plait.encoders.base.base import Encoder, PixelNorm
from plait.encoders.base.regions import boxes_for
from plait.modalities.image.preprocess import ImagePreprocess
from plait.nn.transformer import AttentionPool, Block, initialise


@dataclass(frozen=True)
class VisionConfig:
    """Shape of an image tower.

    Attributes:
        image_size: height and width in pixels.
        patch: side of a patch in pixels.
        width, layers, heads, hidden: of the transformer; ``hidden`` is inside its MLPs.
        act: see `transformer.ACTIVATIONS`.
        eps: of the layer norms.
        clip_stem: CLIP's stem: class token, norm before the blocks, no bias in the patch
            convolution. False: SigLIP's, without the first two and with the third.
        pool: ``cls``, ``mean`` (patches), or ``attention`` (SigLIP's head).
    """

    image_size: tuple[int, int]
    patch: int
    width: int
    layers: int
    heads: int
    hidden: int
    act: str = "quick_gelu"
    eps: float = 1e-5
    clip_stem: bool = True
    pool: str = "cls"

    def __post_init__(self) -> None:
        if self.pool not in ("cls", "mean", "attention"):
            raise ModelError(f"image tower: no pooling named {self.pool!r}")
        if self.pool == "cls" and not self.clip_stem:
            raise ModelError("image tower: pooling 'cls' needs a class token (clip_stem)")


class ClipVision(Encoder):
    """Image tower of the CLIP family.

    Tokens are the positions after the last norm, the class token first where there is one.
    """

    modality = IMAGE
    preprocess: ImagePreprocess

    def __init__(self, config: VisionConfig, preprocess: ImagePreprocess) -> None:
        super().__init__()
        self.config, self.preprocess = config, preprocess
        c = config
        self.width = self.token_width = c.width
        self.normalise = PixelNorm(preprocess.mean, preprocess.std)
        self.patch = nn.Conv2d(3, c.width, c.patch, c.patch, bias=not c.clip_stem)
        positions = (c.image_size[0] // c.patch) * (c.image_size[1] // c.patch) + c.clip_stem
        scale = c.width**-0.5
        self.position = nn.Parameter(scale * torch.randn(positions, c.width))
        if c.clip_stem:
            self.class_token = nn.Parameter(scale * torch.randn(c.width))
            self.pre_norm = nn.LayerNorm(c.width, eps=c.eps)
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.hidden, c.act, c.eps) for _ in range(c.layers)
        )
        self.post_norm = nn.LayerNorm(c.width, eps=c.eps)
        if c.pool == "attention":
            self.head = AttentionPool(c.width, c.heads, c.hidden, c.act, c.eps)
        initialise(self.blocks, c.width)

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``pixels`` (B, 3, H, W) of the tower's size, uint8, or float 0 to 1."""
        tokens = self.encode(self.normalise(inputs.tensors["pixels"]))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        rows, columns = (side // self.config.patch for side in self.config.image_size)
        return Encoded(tokens, mask, self.pooled(tokens), boxes_for(tokens, rows, columns))

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) to tokens (B, N, D)."""
        if tuple(pixels.shape[-2:]) != tuple(self.config.image_size):
            raise DataError(
                f"this image tower takes {_times(self.config.image_size)} pixels,"
                f" not {_times(pixels.shape[-2:])}"
            )
        x = self.patch(pixels).flatten(2).transpose(1, 2)
        if self.config.clip_stem:
            x = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], dim=1)
        x = x + self.position
        if self.config.clip_stem:
            x = self.pre_norm(x)
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.post_norm(x)
        return tokens

    def pooled(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) to (B, D)."""
        if self.config.pool == "attention":
            out: Tensor = self.head(tokens)
            return out
        if self.config.pool == "cls":
            return tokens[:, 0]
        return tokens[:, int(self.config.clip_stem) :].mean(dim=1)

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "clip",
            "kind": "image",
            "config": asdict(self.config) | {"image_size": list(self.config.image_size)},
            "preprocess": self.preprocess.to_json(),
        }


def _times(size: Any) -> str:
    return " x ".join(str(int(side)) for side in size)


def rebuild(spec: dict[str, Any], folder: Path) -> ClipVision:
    """The architecture of a spec, without weights."""
    height, width = spec["config"]["image_size"]
    config = VisionConfig(**(spec["config"] | {"image_size": (height, width)}))
    return ClipVision(config, ImagePreprocess.from_json(spec["preprocess"]))
