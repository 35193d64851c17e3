"""``clip/FOLDER``: one tower of a published CLIP or SigLIP checkpoint, without its projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plait.core.modality import IMAGE
from plait.encoders import clip_text, clip_vision
from plait.encoders.base import Encoder, Example, Family


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """One tower of the checkpoint in a folder."""
    raise NotImplementedError


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec, without weights."""
    return (clip_vision if spec["kind"] == "image" else clip_text).rebuild(spec, folder)


FAMILY = Family(
    prefix="clip",
    build=build,
    rebuild=rebuild,
    help="one tower of a published CLIP or SigLIP checkpoint in a folder",
)
