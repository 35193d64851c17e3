"""Vision-language systems by name, and back from a saved spec."""

from __future__ import annotations

import inspect
from typing import Any

from plait.core.errors import ModelError, did_you_mean
from plait.models.systems.base import System
from plait.models.systems.lxmert import Lxmert
from plait.models.systems.uniter import Uniter, UniterTwoStream
from plait.models.systems.vilbert import Vilbert
from plait.models.systems.visual_bert import VisualBert

SYSTEMS: dict[str, type[System]] = {
    system.kind: system for system in (VisualBert, Uniter, UniterTwoStream, Vilbert, Lxmert)
}


def build_system(kind: str, *, vocabulary: int, region_width: int, **options: Any) -> System:
    """A system with random weights, of the published sizes unless options say otherwise.

    Args:
        kind: a key of `SYSTEMS`.
        vocabulary: number of words.
        region_width: features of a region.
        options: of the system's constructor, such as ``width`` and ``layers``.

    Raises:
        ModelError: an unknown kind or option, or sizes that don't fit together.
    """
    if kind not in SYSTEMS:
        raise ModelError(
            f"no vision-language system {kind!r}{did_you_mean(kind, SYSTEMS)}"
            f" (have: {', '.join(SYSTEMS)})"
        )
    system = SYSTEMS[kind]
    known = list(inspect.signature(system).parameters)
    for name in options:
        if name not in known:
            raise ModelError(
                f"{kind} has no option {name!r}{did_you_mean(name, known)}"
                f" (options: {', '.join(known)})"
            )
    return system(vocabulary=vocabulary, region_width=region_width, **options)


def system_from_spec(spec: dict[str, Any]) -> System:
    """The architecture that `System.spec` described, with random weights.

    Raises:
        ModelError: a spec of another version.
    """
    lacking = [key for key in ("kind", "vocabulary", "region_width") if key not in spec]
    if lacking:
        raise ModelError(f"the saved vision-language system lacks {lacking[0]!r}")
    return build_system(**spec)
