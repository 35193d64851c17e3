"""``scratch/NAME``: small encoders without pretrained weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plait.core.errors import ModelError, did_you_mean
from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder, Example, Family, check_modality, check_options
from plait.encoders.scratch import image as scratch_image
from plait.encoders.scratch import text as scratch_text
from plait.encoders.scratch import vit as scratch_vit

KINDS: dict[str, tuple[str, Callable[..., Encoder]]] = {
    "vit-tiny": (IMAGE, scratch_image.vit),
    "cnn": (IMAGE, scratch_image.cnn),
    "vit": (IMAGE, scratch_vit.vit),
    "transformer": (TEXT, scratch_text.transformer),
    "ngram": (TEXT, scratch_text.ngram),
    "tokens": (TEXT, scratch_text.tokens),
}


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """``scratch/NAME``; the options are the parameters of its builder."""
    if name not in KINDS:
        raise ModelError(
            f"no encoder scratch/{name}{did_you_mean(name, KINDS)} (have: {', '.join(KINDS)})"
        )
    own, builder = KINDS[name]
    check_modality(f"scratch/{name}", modality, (own,))
    check_options(f"scratch/{name}", options, tuple(inspect.signature(builder).parameters))
    return builder(**options)


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec, without weights."""
    if spec["kind"] == "cnn":
        return scratch_image.rebuild_cnn(spec, folder)
    if spec["kind"] == "vit":
        return scratch_vit.rebuild(spec, folder)
    return scratch_text.rebuild(spec, folder)


FAMILY = Family(
    prefix="scratch",
    build=build,
    rebuild=rebuild,
    help="small encoders without pretrained weights: " + ", ".join(KINDS),
    examples=(
        Example("scratch/vit-tiny", IMAGE, {"size": 32, "width": 24, "layers": 2}),
        Example("scratch/cnn", IMAGE, {"size": 32, "widths": [8, 16]}),
        Example("scratch/vit", IMAGE, {"image_size": 32, "width": 24, "layers": 2}),
        Example("scratch/transformer", TEXT, {"width": 24, "layers": 2}),
        Example("scratch/ngram", TEXT, {"width": 16, "buckets": 1009}),
    ),
)
