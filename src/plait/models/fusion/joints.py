"""Every way to join modalities by one name: the ideas of `plait.fusion` and the classic systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder
from plait.fusion.base import Fusion
from plait.fusion.registry import FUSIONS, build_fusion, fusion_from_spec
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.systems.base import System
from plait.models.systems.registry import SYSTEMS, build_system, system_from_spec

JOINTS: tuple[str, ...] = (*FUSIONS, *SYSTEMS)


def build_joint(
    kind: str, encoders: Mapping[str, Encoder], width: int, **options: Any
) -> Fusion | System:
    """A fusion or a system for these encoders, with new weights.

    Args:
        kind: its name.
        encoders: by modality.
        width: features of the fused representation.
        options: its further arguments.

    Raises:
        ModelError: an unknown name or option.
    """
    if kind in SYSTEMS:
        preprocess = encoders[TEXT].preprocess
        assert isinstance(preprocess, TextPreprocess)
        return build_system(
            kind,
            vocabulary=preprocess.vocabulary,
            region_width=encoders[IMAGE].token_width,
            width=width,
            **options,
        )
    return build_fusion(
        kind,
        widths={name: encoder.width for name, encoder in encoders.items()},
        token_widths={name: encoder.token_width for name, encoder in encoders.items()},
        width=width,
        **options,
    )


def joint_from_spec(spec: dict[str, Any]) -> Fusion | System:
    """What ``spec()`` of a fusion or system described, with random weights."""
    return system_from_spec(spec) if spec["kind"] in SYSTEMS else fusion_from_spec(spec)
