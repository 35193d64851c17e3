"""Charts as inline SVG: no script, no network; colours come from the page, so dark pages work too.

Every chart has a title and a sentence for those who cannot see it. Lengths are in SVG units, which a
page scales to its width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

Number: TypeAlias = int | float

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 14, 38


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        name: for the legend.
        points: (x, y), x rising.
        style: which of the page's colours, 1 to 4.
    """

    name: str
    points: Sequence[tuple[Number, Number]]
    style: int = 1


def ticks(low: Number, high: Number, count: int = 5) -> list[float]:
    """Round numbers at 1, 2 or 5 times a power of ten that lie in a range."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(float(number * step), 12) for number in range(first, last + 1)]


def short(value: Number) -> str:
    """A number for an axis."""
    if value and (abs(value) >= 100_000 or abs(value) < 0.001):
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def thinned(points: Sequence[tuple[Number, Number]], most: int) -> list[tuple[float, float]]:
    """At most so many points: the means of equal stretches."""
    size = math.ceil(len(points) / most) if points else 1
    found = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        found.append((sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)))
    return found


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    told: str,
    x_label: str,
    zero: bool = True,
    mark: tuple[Number, Number] | None = None,
    mark_label: str = "",
    borders: Sequence[Number] = (),
) -> str:
    """Lines over a common axis.

    Args:
        series: lines; those without points are left out.
        title: what is drawn.
        told: the same in a sentence, for screen readers.
        x_label: under the axis.
        zero: the y axis starts at 0.
        mark: a point to stand out.
        mark_label: what it is.
        borders: x where something new begins.
    """
    series = [line for line in series if line.points]
    if not series:
        return ""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    frame = _Frame(min(xs), max(xs), 0.0 if zero and min(ys) >= 0 else min(ys), max(ys))
    parts = [frame.grid(x_label)]
    for border in borders:
        x = frame.x(border)
        parts.append(f'<line class="border" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for line in series:
        path = " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in line.points)
        if len(line.points) == 1:
            x, y = line.points[0]
            parts.append(
                f'<circle class="dot s{line.style}" cx="{frame.x(x)}" cy="{frame.y(y)}" r="4"/>'
            )
        else:
            parts.append(f'<polyline class="line s{line.style}" points="{path}"/>')
    if mark is not None:
        x, y = frame.x(mark[0]), frame.y(mark[1])
        anchor = "end" if x > WIDTH * 0.6 else "start"
        shift = -9 if anchor == "end" else 9
        below = 16 if y < TOP + 20 else -9
        parts.append(f'<circle class="mark" cx="{x}" cy="{y}" r="5"/>')
        parts.append(
            f'<text class="note" x="{x + shift}" y="{y + below}" text-anchor="{anchor}">'
            f"{escape(mark_label)}</text>"
        )
    keys = [f'<span class="key k{line.style}">{escape(line.name)}</span>' for line in series]
    return _figure(title, told, "".join(parts), "".join(keys) if len(keys) > 1 else "")


def histogram(
    series: Sequence[tuple[str, Sequence[Number], int]],
    *,
    low: Number,
    high: Number,
    title: str,
    told: str,
    x_label: str,
) -> str:
    """Shares per equal bin as overlapping steps.

    Args:
        series: (name, shares, style) with the same number of bins each.
        low: left end of the first bin.
        high: right end of the last bin.
        title: what is drawn.
        told: the same in a sentence.
        x_label: under the axis.
    """
    bins = len(series[0][1])
    used = [i for i in range(bins) if any(shares[i] > 0 for _, shares, _ in series)]
    first, last = max(0, used[0] - 1), min(bins, used[-1] + 2)
    step = (high - low) / bins
    top = max(100 * share for _, shares, _ in series for share in shares)
    frame = _Frame(low + first * step, low + last * step, 0.0, top)
    parts = [frame.grid(x_label, "%")]
    for _, shares, style in series:
        corners = [(low + first * step, 0.0)]
        for place in range(first, last):
            height = 100 * shares[place]
            corners += [(low + place * step, height), (low + (place + 1) * step, height)]
        corners.append((low + last * step, 0.0))
        path = " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in corners)
        parts.append(f'<polygon class="area s{style}" points="{path}"/>')
    legend = "".join(
        f'<span class="key k{style}">{escape(name)}</span>' for name, _, style in series
    )
    return _figure(title, told, "".join(parts), legend)


@dataclass(frozen=True)
class Estimate:
    """A figure in percent with its interval.

    Attributes:
        name: left of it.
        value: the figure.
        low: lower end of the interval, None without one.
        high: upper end.
        chance: what guessing gives; None where nothing tells.
        style: which of the page's colours, 1 to 4.
        count: how many the figure is of; None where that is told elsewhere.
    """

    name: str
    value: Number
    low: Number | None
    high: Number | None
    chance: Number | None
    style: int = 1
    count: int | None = None


def estimates(rows: Sequence[Estimate], *, title: str, told: str) -> str:
    """Figures as dots with their intervals as bars, and a tick where guessing would be."""
    gap, left, right = 28, 122, 54
    bottom = 12 + gap * len(rows)
    parts = []
    span = WIDTH - left - right

    def across(value: Number) -> float:
        return round(left + span * value / 100, 1)

    for value in (0, 25, 50, 75, 100):
        x = across(value)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="8" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{value}</text>'
        )
    for number, row in enumerate(rows):
        y = 8 + gap * number + gap / 2
        parts.append(
            f'<text class="name" x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>'
        )
        if row.low is not None and row.high is not None:
            a, b = across(row.low), across(row.high)
            parts.append(
                f'<line class="whisker s{row.style}" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>'
            )
        if row.chance is not None:
            x = across(row.chance)
            parts.append(f'<line class="chance" x1="{x}" x2="{x}" y1="{y - 7}" y2="{y + 7}"/>')
        parts.append(f'<circle class="dot s{row.style}" cx="{across(row.value)}" cy="{y}" r="6"/>')
        parts.append(
            f'<text class="value" x="{WIDTH - right + 10}" y="{y + 5}">{row.value:.1f}</text>'
        )
    guessing = any(row.chance is not None for row in rows)
    legend = '<span class="key kc">guessing</span>' if guessing else ""
    legend += '<span class="key kw">95% interval</span>'
    return _figure(title, told, "".join(parts), legend, height=bottom + 22)


def bars(rows: Sequence[tuple[str, Number, str]], *, title: str, told: str) -> str:
    """(name, length, words at the end) as horizontal bars."""
    gap, left, right = 26, 116, 92
    longest = max((value for _, value, _ in rows), default=1) or 1
    parts = []
    for number, (name, value, words) in enumerate(rows):
        y = 6 + gap * number
        length = max(1.5, (WIDTH - left - right) * value / longest)
        parts.append(
            f'<text class="name" x="{left - 10}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
        )
        parts.append(
            f'<rect class="bar" x="{left}" y="{y + 3}" width="{length:.1f}" height="16" rx="3"/>'
        )
        parts.append(
            f'<text class="value" x="{left + length + 8:.1f}" y="{y + 16}">{escape(words)}</text>'
        )
    return _figure(title, told, "".join(parts), "", height=12 + gap * len(rows))


class _Frame:
    """Data to SVG units, with a grid."""

    def __init__(self, left: Number, right: Number, low: Number, high: Number) -> None:
        self.left, self.right = left, right if right > left else left + 1
        margin = 0.05 * (high - low) or 0.5
        self.low, self.high = (low if low == 0 else low - margin), high + margin

    def x(self, value: Number) -> float:
        share = (value - self.left) / (self.right - self.left)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: Number) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def grid(self, x_label: str, unit: str = "") -> str:
        parts = []
        for value in ticks(self.low, self.high):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(
                f'<text class="tick" x="{LEFT - 7}" y="{y + 4}" text-anchor="end">'
                f"{short(value)}{unit}</text>"
            )
        for value in ticks(self.left, self.right, 6):
            x = self.x(value)
            parts.append(
                f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
                f"{short(value)}</text>"
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(
            f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
        )
        return "".join(parts)


def _figure(title: str, told: str, inside: str, legend: str, height: Number = HEIGHT) -> str:
    keys = f'<div class="legend">{legend}</div>' if legend else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(told)}">'
        f"<title>{escape(told)}</title>{inside}</svg>{keys}</figure>"
    )
