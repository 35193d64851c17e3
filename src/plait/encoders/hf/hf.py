"""``hf/OWNER/NAME`` or ``hf/FOLDER``: models in transformers' format, for texts or images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder, Family, check_modality
from plait.encoders.hf import image as hf_image
from plait.encoders.hf import text as hf_text
from plait.encoders.hf import weights as hf_weights


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """A text or image encoder from the model hub or a local folder."""
    source = f"hf/{name}"
    check_modality(source, modality, (IMAGE, TEXT))
    folder = hf_weights.resolve(name)
    builder = hf_text if modality == TEXT else hf_image
    return builder.build_from_folder(folder, source, pretrained=pretrained, options=options)


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec, without weights."""
    return (hf_text if spec["kind"] == "text" else hf_image).rebuild(spec, folder)


FAMILY = Family(
    prefix="hf",
    build=build,
    rebuild=rebuild,
    help="a transformers or sentence-transformers model: OWNER/NAME on the hub, or a folder",
)
