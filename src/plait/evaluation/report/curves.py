"""Training curves: from the records of a run to lines, and to a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.evaluation.report.plots import Number, Series, thinned

MOST = 240  # points of a line; more can't be told apart on a page

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """One chart.

    Attributes:
        title: what it shows.
        told: the same in a sentence with figures.
        series: its lines over the update number.
        zero: whether its y axis starts at 0.
        mark: a point to stand out, and what it is.
        borders: updates at which a stage begins.
    """

    title: str
    told: str
    series: tuple[Series, ...]
    zero: bool = True
    mark: tuple[float, float] | None = None
    mark_label: str = ""
    borders: tuple[Number, ...] = ()


def curves(records: Sequence[Record]) -> list[Curve]:
    """Loss, recall, effective rank, temperature and gradient norm, as far as they were recorded."""
    updates = [record for record in records if record["kind"] == "update"]
    checks = [record for record in records if record["kind"] == "validation"]
    starts: dict[str, Number] = {}
    for record in records:
        starts.setdefault(record["stage"], record["run_step"])
    borders = tuple(starts.values())[1:]
    charts = [
        _loss(updates, checks),
        _recall(checks),
        _accuracy(checks),
        _tasks(updates),
        _agreement(updates),
        _rank(checks),
        *_steps(updates),
    ]
    return [
        Curve(c.title, c.told, c.series, c.zero, c.mark, c.mark_label, borders)
        for c in charts
        if c is not None
    ]


def _loss(updates: Sequence[Record], checks: Sequence[Record]) -> Curve | None:
    training = _line(updates, "loss")
    validation = _line(checks, "loss")
    drawn = (Series("training", training, 1), Series("validation", validation, 2))
    lines = tuple(line for line in drawn if line.points)
    if not lines:
        return None
    told = "; ".join(
        f"{line.name} loss from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
        for line in lines
    )
    return Curve("Loss", told, lines, zero=False)


def _recall(checks: Sequence[Record]) -> Curve | None:
    points = _line(checks, "mean_recall")
    if not points:
        return None
    best = max(points, key=lambda point: point[1])
    lines = [Series("mean recall", points, 3)]
    for way, name, style in (
        ("text_to_image", "words to picture, R@1", 1),
        ("image_to_text", "picture to words, R@1", 2),
    ):
        own = [
            (record["run_step"], record["retrieval"][way]["R@1"])
            for record in checks
            if "R@1" in record.get("retrieval", {}).get(way, {})
        ]
        lines.append(Series(name, thinned(own, MOST), style))
    told = f"Recall on validation pictures; the best mean recall is {best[1]:.1f} percent."
    return Curve(
        "Validation recall, %",
        told,
        tuple(line for line in lines if line.points),
        mark=best,
        mark_label=f"best {best[1]:.1f}",
    )


def _accuracy(checks: Sequence[Record]) -> Curve | None:
    """Validation accuracy of fusion models, a line a head."""
    drawn = []
    heads = (("vqa", "answers"), ("classification", "classes"), ("match", "pairs"))
    for style, (key, name) in enumerate(heads, 1):
        points = [(r["run_step"], r[key]["accuracy"]) for r in checks if key in r]
        if points:
            drawn.append(Series(name, thinned(points, MOST), style))
    if not drawn:
        return None
    told = "; ".join(f"{line.name} end at {line.points[-1][1]:.1f} percent" for line in drawn)
    return Curve("Validation accuracy, %", f"{told}.", tuple(drawn), zero=False)


def _tasks(updates: Sequence[Record]) -> Curve | None:
    """The losses of several tasks."""
    names = dict.fromkeys(name for r in updates for name in r.get("parts", {}) if "/" not in name)
    if len(names) < 2:
        return None
    drawn = tuple(
        Series(
            name,
            thinned(
                [(r["run_step"], r["parts"][name]) for r in updates if name in r.get("parts", {})],
                MOST,
            ),
            1 + place % 4,
        )
        for place, name in enumerate(names)
    )
    told = "; ".join(f"{line.name} ends at {line.points[-1][1]:.3g}" for line in drawn)
    return Curve("Loss of each task", f"{told}.", drawn)


def _agreement(updates: Sequence[Record]) -> Curve | None:
    """Cosines between the tasks' gradients: below zero they pull against one another."""
    names = dict.fromkeys(
        name for r in updates for name in r.get("parts", {}) if name.startswith("agreement/")
    )
    if not names:
        return None
    drawn = tuple(
        Series(
            name.removeprefix("agreement/").replace("-", " and "),
            thinned(
                [(r["run_step"], r["parts"][name]) for r in updates if name in r.get("parts", {})],
                MOST,
            ),
            1 + place % 4,
        )
        for place, name in enumerate(names)
    )
    below = sum(y < 0 for line in drawn for _, y in line.points)
    count = sum(len(line.points) for line in drawn)
    told = f"The tasks' gradients pull against one another in {below} of {count} measurements."
    return Curve("Agreement of the tasks' gradients (cosine)", told, drawn, zero=False)


def _rank(checks: Sequence[Record]) -> Curve | None:
    lines = []
    for style, modality in ((1, "image"), (2, "text")):
        points = [
            (record["run_step"], record["rank"][modality])
            for record in checks
            if modality in record.get("rank", {})
        ]
        if points:
            lines.append(Series(f"{modality}s", thinned(points, MOST), style))
    if not lines:
        return None
    told = "; ".join(f"{line.name} end at {line.points[-1][1]:.0f} directions" for line in lines)
    return Curve("Effective rank", f"Effective rank: {told}.", tuple(lines))


def _steps(updates: Sequence[Record]) -> list[Curve | None]:
    scale = _line(updates, "scale")
    norm = _line(updates, "grad_norm")
    return [
        Curve(
            "Logit scale (1 / temperature)",
            f"The logit scale goes from {scale[0][1]:.1f} to {scale[-1][1]:.1f}.",
            (Series("scale", scale, 4),),
            zero=False,
        )
        if scale
        else None,
        Curve(
            "Gradient norm before clipping",
            f"The gradient norm goes from {norm[0][1]:.3g} to {norm[-1][1]:.3g}.",
            (Series("norm", norm, 4),),
        )
        if norm
        else None,
    ]


def _line(records: Sequence[Record], name: str) -> list[tuple[float, float]]:
    points = [
        (record["run_step"], record[name]) for record in records if record.get(name) is not None
    ]
    return thinned(points, MOST)


def draw_curves(charts: Sequence[Curve], path: Path) -> None:
    """The same charts as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = {1: "#3457b2", 2: "#a85300", 3: "#1a7f37", 4: "#8250df"}
    columns = min(3, len(charts))
    rows = -(-len(charts) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.1 * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for number, chart in enumerate(charts):
        axes = figure.add_subplot(rows, columns, number + 1)
        for line in chart.series:
            x, y = zip(*line.points, strict=True)
            marker = "o" if len(x) == 1 else ""
            axes.plot(
                x, y, color=colours[line.style], label=line.name, linewidth=1.8, marker=marker
            )
        if chart.mark is not None:
            axes.plot(*chart.mark, "o", color="white", markeredgecolor=colours[3], markersize=7)
            axes.annotate(
                chart.mark_label,
                chart.mark,
                xytext=(0, -16),
                textcoords="offset points",
                ha="center",
            )
        for border in chart.borders:
            axes.axvline(float(border), color="#888888", linestyle=":", linewidth=1)
        axes.set_title(chart.title, fontsize=11, loc="left")
        axes.set_xlabel("update")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if chart.zero:
            axes.set_ylim(bottom=0)
        if len(chart.series) > 1:
            axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png")
