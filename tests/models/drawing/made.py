"""Small drawing models with lively weights: at the usual start all codes are nearly equal."""

from __future__ import annotations

import torch

from plait.modalities.text.tokenize import TextPreprocess
from plait.modalities.text.tokenizer_training import train_tokenizer
from plait.models.drawing.drawing import DrawingModel
from plait.models.drawing.dvae import DiscreteVAE
from plait.models.drawing.transformer import DrawingTransformer

TEXTS = ["a red apple", "a blue car", "the sun", "two green apples and a car"]


def transformer(seed: int = 0, **options: object) -> DrawingTransformer:
    """Float64, so that rounding never decides which code is drawn."""
    settings = {
        "vocabulary": 20, "text_length": 5, "codes": 16, "grid": (4, 4), "width": 16, "layers": 3,
        "heads": 2, "kinds": ("row", "column", "conv"), "kernel": 3,
    }  # fmt: skip
    torch.manual_seed(seed)
    made = DrawingTransformer(**{**settings, **options})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return made.double().eval()


def drawing(seed: int = 0, **options: object) -> DrawingModel:
    tokenizer = train_tokenizer(TEXTS, kind="word", vocabulary=40)
    preprocess = TextPreprocess(tokenizer, max_length=5)
    torch.manual_seed(seed)
    dvae = DiscreteVAE(16, 16, 2, 8, 1, 8)
    made = transformer(seed, vocabulary=preprocess.vocabulary, **options)
    return DrawingModel(dvae.double().eval(), made, preprocess)
