"""Encoders by source string, and back from a saved spec.

A source is ``FAMILY/REST``. A package adds a family by an entry point of ``plait.encoders``; the
examples of plait's own join the shared sweep test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plait.core.errors import ModelError, did_you_mean
from plait.core.registry import Registry
from plait.encoders.base.base import Encoder, Family

FAMILIES: Registry[Family] = Registry(
    "encoder family",
    "plait.encoders",
    {
        "pkg": "plait.encoders.image.packaged:FAMILY",
        "timm": "plait.encoders.image.timm_image:FAMILY",
        "torchvision": "plait.encoders.image.torchvision_image:FAMILY",
        "hf": "plait.encoders.hf.hf:FAMILY",
        "clip": "plait.encoders.clip.clip:FAMILY",
        "scratch": "plait.encoders.scratch.scratch:FAMILY",
        "join": "plait.encoders.compose.joined:FAMILY",
        "regions": "plait.encoders.image.precomputed_regions:FAMILY",
        "narrowed": "plait.encoders.compose.narrowed:FAMILY",
        "run": "plait.encoders.compose.narrowed:RUN",
    },
)
"""By the prefix of their sources."""


def _family(prefix: str, what: str) -> Family:
    if prefix not in FAMILIES:
        raise ModelError(
            f"{what}: no encoder family {prefix!r}{did_you_mean(prefix, FAMILIES)}"
            f" (have: {', '.join(FAMILIES)})"
        )
    return FAMILIES[prefix]


def build_encoder(
    source: str, *, modality: str, pretrained: bool = True, **options: Any
) -> Encoder:
    """An encoder from its source string, in evaluation mode.

    Args:
        source: such as ``timm/resnet18``, ``pkg/minilm-l6`` or ``hf/./my-bert``.
        modality: what it is to encode.
        pretrained: load weights; False gives random ones.
        options: of the family, such as ``pool="mean+max"``.

    Raises:
        ModelError: an unknown source or option, an unfit modality, or weights that are missing.
    """
    prefix, slash, rest = source.partition("/")
    if not slash or not rest:
        if Path(source).expanduser().is_dir():
            prefix, rest = "hf", source
        else:
            raise ModelError(
                f"encoder source {source!r} must be FAMILY/NAME, such as timm/resnet18"
                f" (families: {', '.join(FAMILIES)})"
            )
    elif prefix not in FAMILIES and Path(source).expanduser().is_dir():
        prefix, rest = "hf", source
    family = _family(prefix, f"encoder source {source!r}")
    return family.build(rest, modality, pretrained, dict(options)).eval()  # type: ignore[return-value]


def encoder_from_spec(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture that `Encoder.spec` described, with random weights, offline.

    Args:
        spec: as saved.
        folder: where `Encoder.save_files` wrote its files.

    Raises:
        ModelError: a spec of another version or an unknown family, or a missing file.
    """
    family = _family(str(spec.get("family")), "saved model")
    try:
        return family.rebuild(spec, folder).eval()  # type: ignore[return-value]
    except (KeyError, TypeError) as problem:
        raise ModelError(
            f"saved encoder of family {family.prefix!r} cannot be read by this version of plait"
            f" ({problem}); save it again with this version"
        ) from problem
