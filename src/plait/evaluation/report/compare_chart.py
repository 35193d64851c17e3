"""The chart of a comparison: quality with its interval beside the time of an update."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Bar = tuple[str, float, float | None, float | None, float]
"""Name, quality, lower and upper end of its interval, milliseconds of an update."""


def draw_comparison(bars: Sequence[Bar], measure: str, path: Path) -> None:
    """Writes a PNG: the best on top.

    Args:
        bars: what to draw.
        measure: what quality is.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    ordered = sorted(bars, key=lambda bar: bar[1])
    names = [bar[0] for bar in ordered]
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(ordered)), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    for place, (_, quality, low, high, _) in enumerate(ordered):
        if low is not None and high is not None:
            left.plot([low, high], [place, place], color="#1b6ca8", linewidth=3, alpha=0.4)
        left.plot(quality, place, "o", color="#1b6ca8")
        left.annotate(
            f"{quality:.1f}",
            (quality, place),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
        )
    left.set_yticks(range(len(names)), names)
    left.set_ylim(-0.6, len(names) - 0.2)
    left.set_xlabel(measure)
    left.margins(x=0.12)
    right.barh(range(len(names)), [bar[4] for bar in ordered], color="#c77b30", height=0.55)
    right.set_xlabel("one update, ms")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")
