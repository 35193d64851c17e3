"""``clip/FOLDER``: one tower of a published CLIP or SigLIP checkpoint, without its projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plait.core.errors import ModelError
from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder, Family, check_modality, check_options
from plait.encoders.clip import checkpoint as clip_checkpoint
from plait.encoders.clip import keys as clip_keys
from plait.encoders.clip import text as clip_text
from plait.encoders.clip import vision as clip_vision
from plait.encoders.hf import weights as hf_weights


def tower_of(checkpoint: clip_checkpoint.Checkpoint, modality: str) -> Encoder:
    """The architecture of one tower, with random weights."""
    if modality == IMAGE:
        return clip_vision.ClipVision(checkpoint.architecture.vision, checkpoint.image_preprocess)
    return clip_text.ClipText(checkpoint.architecture.text, checkpoint.text_preprocess)


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """One tower of the checkpoint in a folder, or of a repository on the model hub."""
    source = f"clip/{name}"
    check_modality(source, modality, (IMAGE, TEXT))
    check_options(source, options, ())
    checkpoint = clip_checkpoint.read_checkpoint(hf_weights.resolve(name))
    encoder = tower_of(checkpoint, modality)
    if pretrained:
        prefix = clip_keys.IMAGE_TOWER if modality == IMAGE else clip_keys.TEXT_TOWER
        own = {
            key.removeprefix(f"{prefix}."): value
            for key, value in checkpoint.weights.items()
            if key.startswith(f"{prefix}.")
        }
        try:
            encoder.load_state_dict(own)
        except RuntimeError as problem:
            raise ModelError(f"{checkpoint.where} doesn't fit: {problem}") from problem
    return encoder


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec, without weights."""
    return (clip_vision if spec["kind"] == "image" else clip_text).rebuild(spec, folder)


FAMILY = Family(
    prefix="clip",
    build=build,
    rebuild=rebuild,
    help="one tower of a published CLIP or SigLIP checkpoint in a folder",
)
