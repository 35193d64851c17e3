"""Bridges by name, and back from a saved spec. A kind in the table joins the shared sweep test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from plait.bridges.base import Bridge
from plait.core.errors import ModelError, did_you_mean
from plait.core.registry import Registry

BRIDGES: Registry[Callable[..., Bridge]] = Registry(
    "bridge",
    "plait.bridges",
    {
        "linear": "plait.bridges.projections:LinearBridge",
        "mlp": "plait.bridges.projections:MlpBridge",
        "pixel_shuffle": "plait.bridges.projections:PixelShuffleBridge",
        "resampler": "plait.bridges.resampler:ResamplerBridge",
        "qformer": "plait.bridges.qformer:QFormerBridge",
    },
)

_GIVEN = ("token_width", "width")


def bridge_options(kind: str) -> tuple[str, ...]:
    """Names of the options of a kind.

    Raises:
        ModelError: an unknown kind.
    """
    return tuple(name for name in _parameters(kind) if name not in _GIVEN)


def build_bridge(
    kind: str, token_width: int, width: int, tokens: int | None = None, **options: Any
) -> Bridge:
    """A bridge by its name.

    Args:
        kind: see `BRIDGES`.
        token_width: features of the encoder's tokens, `Encoder.token_width`.
        width: features of what it gives, those of the language model's embeddings.
        tokens: how many the encoder gives for one picture, so that a number that does not fit is
            found at once; None where it is not known.
        options: of the kind, such as ``layers``.

    Raises:
        ModelError: an unknown kind or option, or an option that does not fit.
    """
    known = bridge_options(kind)
    for name in options:
        if name not in known:
            raise ModelError(
                f"bridge {kind!r} has no option {name!r}{did_you_mean(name, known)}"
                f" (options: {', '.join(known)})"
            )
    bridge = BRIDGES[kind](token_width, width, **options)
    if tokens is not None:
        bridge.count(tokens)
    return bridge


def bridge_from_spec(spec: Mapping[str, Any]) -> Bridge:
    """The architecture that `Bridge.spec` described, with random weights.

    Raises:
        ModelError: an unknown kind, or a spec of another version.
    """
    kind = str(spec.get("kind"))
    _parameters(kind)
    try:
        return BRIDGES[kind](**{name: value for name, value in spec.items() if name != "kind"})
    except TypeError as problem:
        raise ModelError(
            f"saved bridge {kind!r} cannot be read by this version of plait ({problem});"
            " save it again with this version"
        ) from problem


def _parameters(kind: str) -> Mapping[str, inspect.Parameter]:
    if kind not in BRIDGES:
        raise ModelError(
            f"no bridge {kind!r}{did_you_mean(kind, BRIDGES)} (have: {', '.join(BRIDGES)})"
        )
    return inspect.signature(BRIDGES[kind]).parameters
