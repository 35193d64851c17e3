"""Small encoders with random weights, inputs for them, and what comes out."""

from __future__ import annotations

import numpy as np
import torch

from plait.encoders.base.base import Encoder
from plait.encoders.registry import build_encoder
from plait.engines.tower import PooledTower, evaluating


def made(source: str, modality: str = "image", **options: object) -> Encoder:
    """An encoder with random weights, none of them zero."""
    torch.manual_seed(0)
    encoder = build_encoder(source, modality=modality, pretrained=False, **options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def pictures(size: int, rows: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"pixels": random.integers(0, 256, (rows, 3, size, size), dtype=np.uint8)}


def words(encoder: Encoder, texts: tuple[str, ...] = ("a cat", "one small dog")) -> dict:
    ids, mask = encoder.preprocess(texts)
    return {"ids": ids, "mask": mask}


def outputs(encoder: Encoder, inputs: dict[str, np.ndarray]) -> torch.Tensor:
    with evaluating(encoder), torch.no_grad():
        tensors = [torch.as_tensor(value) for value in inputs.values()]
        return PooledTower(encoder, list(inputs))(*tensors)
