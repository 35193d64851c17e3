"""``regions/precomputed``: what a detector found before, as the tokens of a picture.

Shape legend: B samples, N regions, D features of a region.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.core.modality import IMAGE
from plait.encoders.base.base import Encoder, Family, check_modality, check_options
from plait.modalities.image.regions import BOXES, FEATURES, RegionPreprocess
from plait.nn.pooling import mean_pool

NAME = "precomputed"


class PrecomputedRegions(Encoder):
    """Features as they are, pooled by their mean. Has no parameters.

    Args:
        preprocess: how wide features are.
    """

    modality = IMAGE
    preprocess: RegionPreprocess

    def __init__(self, preprocess: RegionPreprocess) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.width = self.token_width = preprocess.width

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``features_of_regions`` (B, N, D), ``boxes`` (B, N, 4) as shares, and a mask.

        Without a mask, empty boxes are padding: no region has one.

        Raises:
            DataError: features of another width.
        """
        tokens, boxes = inputs.tensors[FEATURES], inputs.tensors[BOXES]
        if tokens.shape[-1] != self.width:
            raise DataError(
                f"features of regions are {tokens.shape[-1]} wide, and the model takes {self.width}"
            )
        mask = boxes[..., 2] > boxes[..., 0] if inputs.mask is None else inputs.mask
        mask = mask & inputs.present[:, None]
        tokens = torch.where(mask[..., None], tokens, torch.zeros_like(tokens))
        return Encoded(tokens, mask, mean_pool(tokens, mask), boxes)

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {"family": "regions", "width": self.width}


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """``regions/precomputed``; option ``width``, the features of a region (2048 when not given)."""
    source = f"regions/{name}"
    if name != NAME:
        raise ModelError(f"no encoder {source}; did you mean regions/{NAME}?")
    check_modality(source, modality, (IMAGE,))
    check_options(source, options, ("width",))
    width = options.get("width", 2048)
    if not isinstance(width, int) or width < 1:
        raise ModelError(f"encoder {source!r}: width is {width!r}; it must be a number above 0")
    return PrecomputedRegions(RegionPreprocess(width))


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec."""
    return PrecomputedRegions(RegionPreprocess(spec["width"]))


# No examples: the shared sweeps feed pictures and texts. tests/encoders/image/test_precomputed_regions.py
# holds it to the same laws.
FAMILY = Family(
    prefix="regions",
    build=build,
    rebuild=rebuild,
    help="features and boxes that a detector computed before: regions/precomputed, option width",
)
