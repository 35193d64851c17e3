"""Every target by name."""

from __future__ import annotations

from tests.fuzz.kinds import Target

NAMES = ("decoders", "readers", "filters", "manifests", "http", "bodies", "agents")

BEFORE = {"manifests": ("torch", "torch.nn.functional", "tokenizers")}
"""Libraries that a target needs and that load far slower while imports are instrumented."""


def target_named(name: str) -> Target:
    """A target; only what it needs is imported.

    Raises:
        KeyError: there is none of that name.
    """
    if name in ("http", "bodies"):
        from tests.fuzz.web import TARGETS
    elif name == "agents":
        from tests.fuzz.tools import TARGETS
    else:
        from tests.fuzz.data import TARGETS
    return {target.name: target for target in TARGETS}[name]
