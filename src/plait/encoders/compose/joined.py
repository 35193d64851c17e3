"""Several image encoders side by side on the same pixels: their outputs are put in one vector.

Backbones that were trained alike still err differently, so that a projection of their joint
features does better than one of the best alone, at the sum of their costs.

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import ModelError
from plait.core.modality import IMAGE
from plait.encoders.base.base import Encoder, Example, Family, check_modality
from plait.modalities.image.preprocess import ImagePreprocess

MARK = "+"


class JoinedEncoder(Encoder):
    """Image encoders whose tokens and pooled outputs are concatenated over features.

    Args:
        parts: at least two, for the same size of pixels. Each normalises pixels in its own way.

    Raises:
        ModelError: one part alone, or parts of different sizes or numbers of tokens.
    """

    modality = IMAGE
    preprocess: ImagePreprocess

    def __init__(self, parts: Sequence[Encoder]) -> None:
        super().__init__()
        if len(parts) < 2:
            raise ModelError("a joined encoder needs at least two encoders, with + between them")
        self.parts = nn.ModuleList(parts)
        shown = [part.preprocess for part in parts]
        sizes = {pre.size_2d for pre in shown if isinstance(pre, ImagePreprocess)}
        if len(sizes) != 1:
            raise ModelError(f"joined encoders must take pictures of one size, not {sorted(sizes)}")
        first = parts[0].preprocess
        assert isinstance(first, ImagePreprocess)
        self.preprocess = first
        with torch.no_grad():
            pixels = torch.zeros(1, 3, *first.size_2d, dtype=torch.uint8)
            found = [part(ModalityInput.of(pixels=pixels)) for part in parts]
            counts = {one.tokens.shape[1] for one in found}
        if len(counts) != 1:
            raise ModelError(f"joined encoders must give equally many tokens, not {sorted(counts)}")
        places = found[0].boxes
        self.placed = places is not None and all(
            one.boxes is not None and torch.equal(one.boxes, places) for one in found
        )
        self.width = sum(part.width for part in parts)
        self.token_width = sum(part.token_width for part in parts)

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``pixels`` (B, 3, H, W), uint8, or float 0 to 1."""
        found = [part(inputs) for part in self.parts]
        return Encoded(
            torch.cat([one.tokens for one in found], dim=-1),
            found[0].mask,
            torch.cat([one.pooled for one in found], dim=-1),
            found[0].boxes if self.placed else None,  # of grids that are alike
        )

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {"family": "join", "parts": [_encoder(part).spec() for part in self.parts]}


def _encoder(module: nn.Module) -> Encoder:
    assert isinstance(module, Encoder)
    return module


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """``join/SOURCE+SOURCE...``; options go to every part; ``size`` is the first one's if not given."""
    from plait.encoders.registry import build_encoder  # it lists this family

    check_modality(f"join/{name}", modality, (IMAGE,))
    parts: list[Encoder] = []
    for source in name.split(MARK):
        if parts and "size" not in options:
            assert isinstance(parts[0].preprocess, ImagePreprocess)
            options = {**options, "size": parts[0].preprocess.size_2d[0]}
        parts.append(build_encoder(source, modality=modality, pretrained=pretrained, **options))
    return JoinedEncoder(parts)


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec, without weights."""
    from plait.encoders.registry import encoder_from_spec

    return JoinedEncoder([encoder_from_spec(part, folder) for part in spec["parts"]])


FAMILY = Family(
    prefix="join",
    build=build,
    rebuild=rebuild,
    help="image encoders side by side: join/SOURCE+SOURCE, options for all of them",
    examples=(Example("join/scratch/cnn+scratch/cnn", IMAGE),),
)
