"""Seconds by step of the way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds by step of the way; a resumed run goes on counting."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        """Counts ``seconds`` under ``name``."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def measure(self, name: str, since: float) -> None:
        """Counts the seconds since ``since`` (`time.perf_counter`) under ``name``."""
        self.add(name, time.perf_counter() - since)
