"""Fusions by name, and back from a saved spec. A kind in the table joins the shared sweep test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from plait.core.errors import ModelError, did_you_mean
from plait.core.registry import Registry
from plait.fusion.base import Fusion
from plait.fusion.inputs import in_order

FUSIONS: Registry[Callable[..., Fusion]] = Registry(
    "fusion",
    "plait.fusions",
    {
        "concat": "plait.fusion.concat:ConcatFusion",
        "intermediate": "plait.fusion.intermediate:IntermediateFusion",
        "late": "plait.fusion.late:LateFusion",
        "gated": "plait.fusion.gated:GatedFusion",
        "shared_attention": "plait.fusion.shared_attention:SharedAttentionFusion",
        "co_attention": "plait.fusion.co_attention:CoAttentionFusion",
        "gated_cross_attention": "plait.fusion.gated_cross_attention:GatedCrossAttentionFusion",
        "bottleneck": "plait.fusion.bottleneck:BottleneckFusion",
        "deep_set": "plait.fusion.deep_set:DeepSetFusion",
    },
)

_GIVEN = ("widths", "token_widths", "width")


def fusion_options(kind: str) -> tuple[str, ...]:
    """Names of the options of a kind, beside ``width``.

    Raises:
        ModelError: an unknown kind.
    """
    return tuple(name for name in _parameters(kind) if name not in _GIVEN)


def build_fusion(
    kind: str,
    *,
    widths: Mapping[str, int],
    token_widths: Mapping[str, int],
    width: int = 256,
    **options: Any,
) -> Fusion:
    """A fusion by its name.

    Args:
        kind: see `FUSIONS`.
        widths: features of each modality's pooled vector (`Encoder.width`), at least two.
        token_widths: features of each modality's tokens (`Encoder.token_width`).
        width: of the fusion; its output may differ, see `Fusion.width`.
        options: of the kind, such as ``layers``.

    Raises:
        ModelError: an unknown kind, option or modality, or an option that does not fit.
    """
    parameters = _parameters(kind)
    known = fusion_options(kind)
    for name in options:
        if name not in known:
            raise ModelError(
                f"fusion {kind!r} has no option {name!r}{did_you_mean(name, known)}"
                f" (options: {', '.join(known) or 'none'})"
            )
    if in_order(widths) != in_order(token_widths):
        raise ModelError(
            f"fusion: widths are of {', '.join(widths)}, token widths of {', '.join(token_widths)}"
        )
    given = {"widths": widths, "token_widths": token_widths, "width": width}
    return FUSIONS[kind](**{k: v for k, v in given.items() if k in parameters}, **options)


def fusion_from_spec(spec: Mapping[str, Any]) -> Fusion:
    """The architecture that `Fusion.spec` described, with random weights.

    Raises:
        ModelError: an unknown kind, or a spec of another version.
    """
    kind = str(spec.get("kind"))
    _parameters(kind)
    try:
        return FUSIONS[kind](**{name: value for name, value in spec.items() if name != "kind"})
    except TypeError as problem:
        raise ModelError(
            f"saved fusion {kind!r} cannot be read by this version of plait ({problem});"
            " save it again with this version"
        ) from problem


def _parameters(kind: str) -> Mapping[str, inspect.Parameter]:
    if kind not in FUSIONS:
        raise ModelError(
            f"no fusion {kind!r}{did_you_mean(kind, FUSIONS)} (have: {', '.join(FUSIONS)})"
        )
    return inspect.signature(FUSIONS[kind]).parameters
