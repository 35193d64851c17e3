"""Images through a transformers model (ViT, DINOv2, ResNet, ConvNeXt and their like).

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.files import read_json
from plait.core.modality import IMAGE
from plait.encoders.base.base import Encoder, PixelNorm, check_options
from plait.encoders.base.image_processor import read_processor
from plait.encoders.base.regions import boxes_for, find_grid, patch_of, sides
from plait.encoders.hf import weights as hf_weights
from plait.modalities.image.preprocess import ImagePreprocess
from plait.nn.pooling import Pool

OPTIONS = ("pool",)


class HfImageEncoder(Encoder):
    """An image encoder around a transformers model.

    Args:
        model: the transformers model.
        preprocess: how pictures become pixels, mean and std included.
        pool: ``native`` is the model's ``pooler_output``; otherwise see `Pool`.
    """

    modality = IMAGE
    preprocess: ImagePreprocess

    def __init__(
        self, model: nn.Module, preprocess: ImagePreprocess, *, pool: str = "native"
    ) -> None:
        super().__init__()
        self.model, self.preprocess, self.pool_kind = model, preprocess, pool
        self.normalise = PixelNorm(preprocess.mean, preprocess.std)
        config: Any = model.config
        sizes = getattr(config, "hidden_sizes", None)
        self.token_width = int(sizes[-1] if sizes else config.hidden_size)
        is_grid = sizes is not None
        self.pool = None if pool == "native" else Pool(pool, skip=0 if is_grid else 1)
        self.width = self.token_width * (1 if self.pool is None else len(self.pool.kinds))

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``pixels`` (B, 3, H, W), uint8, or float 0 to 1."""
        pixels = inputs.tensors["pixels"]
        output = self.model(pixel_values=self.normalise(pixels))
        tokens = output.last_hidden_state
        if tokens.ndim == 4:
            grid: tuple[int, int] | None = sides(tokens.shape[-2:])
            tokens = tokens.flatten(2).transpose(1, 2)
        else:
            patch = patch_of(getattr(self.model.config, "patch_size", None))
            grid = find_grid(int(tokens.shape[1]), sides(pixels.shape[-2:]), patch)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if self.pool is None:
            pooled = output.pooler_output.flatten(1)
        else:
            pooled = self.pool(tokens, mask)
        boxes = None if grid is None else boxes_for(tokens, *grid)
        return Encoded(tokens, mask, pooled, boxes)

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "hf",
            "kind": "image",
            "config": hf_weights.config_to_json(self.model.config),
            "preprocess": self.preprocess.to_json(),
            "pool": self.pool_kind,
        }


def _natural_pool(config: Any) -> str:
    # ViT's pooler is a tanh layer that only some checkpoints have; its class token is what counts.
    return "native" if getattr(config, "hidden_sizes", None) is not None else "cls"


def build_from_folder(
    folder: Path, source: str, *, pretrained: bool, options: dict[str, Any]
) -> HfImageEncoder:
    """An image encoder from a folder with config.json, weights and preprocessor_config.json."""
    check_options(source, options, OPTIONS)
    model = hf_weights.load_model(folder, source, pretrained=pretrained)
    path = folder / "preprocessor_config.json"
    preprocess = read_processor(read_json(path) if path.exists() else {}, model.config)
    return HfImageEncoder(model, preprocess, **{"pool": _natural_pool(model.config)} | options)


def rebuild(spec: dict[str, Any], folder: Path) -> HfImageEncoder:
    """The architecture of a spec, without weights."""
    model = hf_weights.model_from_config(spec["config"])
    preprocess = ImagePreprocess.from_json(spec["preprocess"])
    return HfImageEncoder(model, preprocess, pool=spec["pool"])
