"""Small models for bundles, and pictures for them."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from plait.encoders.base.base import Encoder
from plait.encoders.registry import build_encoder
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.heads import Head
from plait.models.base.projection import build_projection
from plait.models.fusion.joints import build_joint
from plait.models.fusion.model import FusionModel
from plait.models.systems.registry import SYSTEMS

TEXTS = ["a red apple", "", "two dogs on the green grass behind a very long fence", "红苹果", "x"]
ANSWERS = ("yes", "no", "blue")


def encoders() -> dict[str, Encoder]:
    torch.manual_seed(0)
    return {
        "image": build_encoder("scratch/cnn", modality="image", size=32, widths=(8, 16)),
        "text": build_encoder(
            "scratch/transformer", modality="text", width=16, layers=1, heads=2, max_length=11
        ),
    }


def alignment_model() -> AlignmentModel:
    towers = {
        name: Tower(encoder, build_projection("linear", encoder.width, 12, heads=2))
        for name, encoder in encoders().items()
    }
    return AlignmentModel(towers, bias_init=-3.0).eval()


def fusion_model(kind: str = "gated", **about: str) -> FusionModel:
    parts = encoders()
    joint = build_joint(kind, parts, 16, **({"heads": 2} if kind in SYSTEMS else {}))
    return FusionModel(parts, joint, {"answer": Head(joint.width, ANSWERS, about=about)}).eval()


def picture(number: int, height: int = 41, width: int = 57) -> np.ndarray:
    """Smooth blotches with grain, (H, W, 3) uint8."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + random.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(array: np.ndarray, form: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()
