"""The report of a compression: ``compression.json``, ``compression.md`` and ``compression.png``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from plait.core.files import replacing, write_json, write_text

NAME: Final = "compression"
WAYS: Final = {"text_to_image": "words to picture", "image_to_text": "picture to words"}


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes the three files into a folder."""
    write_json(folder / f"{NAME}.json", report)
    write_text(folder / f"{NAME}.md", markdown(report))
    draw(folder / f"{NAME}.png", report)


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(what, before, after, ratio) of everything that was measured."""
    before, after = report["before"], report["after"]
    found = [
        (
            "size of the weights, MiB",
            f"{before['bytes'] / 2**20:.1f}",
            f"{after['bytes'] / 2**20:.1f}",
            f"{report['ratios']['bytes']:.3f}",
        ),
        (
            "multiply-adds of a picture and a text, millions",
            f"{sum(before['multiply_adds'].values()) / 1e6:.0f}",
            f"{sum(after['multiply_adds'].values()) / 1e6:.0f}",
            f"{report['ratios']['multiply_adds']:.3f}",
        ),
    ]
    for way, words in WAYS.items():
        found.append(
            (
                f"recall@1, {words}, %",
                _recall(before["retrieval"][way]),
                _recall(after["retrieval"][way]),
                "",
            )
        )
    for modality, batches in before["latency_ms"].items():
        for size, taken in batches.items():
            ratio = report["ratios"]["rows_per_second"][modality][size]
            found.append(
                (
                    f"latency, {modality}, batch {size}, ms",
                    f"{taken:.1f}",
                    f"{after['latency_ms'][modality][size]:.1f}",
                    f"{ratio:.2f} times the rows a second",
                )
            )
    peaks = before["peak_mib"], after["peak_mib"]
    first, second = (f"{peak:.0f}" for peak in peaks)
    ratio = f"{peaks[1] / peaks[0]:.2f}"
    found.append(("peak memory of the process, MiB", first, second, ratio))
    first, second = (f"{one['load_seconds']:.2f}" for one in (before, after))
    found.append(("from start to first rows, s", first, second, ""))
    return found


def _recall(figures: Mapping[str, Any]) -> str:
    if "R@1_low" not in figures:
        return f"{figures['R@1']:.1f}"
    return f"{figures['R@1']:.1f} ({figures['R@1_low']:.1f} to {figures['R@1_high']:.1f})"


def markdown(report: Mapping[str, Any]) -> str:
    """The page."""
    lost = report["lost"]
    between = (
        f" (95% interval of paired queries {lost['low']:.2f} to {lost['high']:.2f})"
        if "low" in lost
        else ""
    )
    method = {"nncf": "int8 by NNCF, for OpenVINO", "onnx": "int8 for ONNX Runtime"}
    lines = [
        "# Compression",
        "",
        f"`{report['run']}`: {report['candidate']}, {method.get(report['int8'], 'float32')}. "
        f"Before: torch float32; {report['threads']} threads on both sides. Recall of "
        f"{report['before']['retrieval']['text_to_image']['queries']:,} texts and "
        f"{report['before']['retrieval']['image_to_text']['queries']:,} pictures with 95% "
        "intervals, on the test split; the choice was made on the validation split.",
        "",
        "| | before | after | ratio |",
        "|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows(report)),
        "",
        f"Recall@1 lost, mean of both ways: {lost['points']:.2f} points{between}; up to "
        f"{report['max_recall_drop']:g} were allowed on the validation split.",
        *(f"\n**{line}**" for line in report.get("cautions", ())),
    ]
    if report["cosine"]:
        near = ", ".join(
            f"{name} {found['mean']:.4f} ({found['least']:.4f})"
            for name, found in report["cosine"].items()
        )
        lines += ["", f"Cosine of a row before to the same one after, mean (least): {near}."]
    if "drift" in report:
        told = ", ".join(f"{name} {value:.1e}" for name, value in report["drift"].items())
        lines += ["", f"Change of a cosine by what else is in a batch, at most: {told}."]
    lines += ["", "## What was tried", ""]
    lines += [
        "| model | int8 | multiply-adds, millions | MiB | recall@1, validation | points lost |",
        "|---|---|---|---|---|---|",
    ]
    for entry in report["tried"]:
        cost = f"{entry['multiply_adds'] / 1e6:.0f}"
        lines.append(_tried(entry["name"], "float", cost, "", entry))
        for one in entry.get("int8", ()):
            floating = sum(len(places) for places in one["groups_in_float"].values())
            words = f"{floating} of {sum(one['groups'].values())} groups of layers in float"
            size = f"{one['bytes'] / 2**20:.1f}"
            lines.append(_tried(entry["name"], words, cost, size, one))
    lines += ["", f"![before and after]({NAME}.png)"]
    return "\n".join(lines) + "\n"


def _tried(name: str, int8: str, cost: str, size: str, entry: Mapping[str, Any]) -> str:
    recall, lost = entry["validation_recall"], entry["validation_lost"]
    return f"| {name} | {int8} | {cost} | {size} | {recall:.2f} | {lost:+.2f} |"


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Bars side by side: size, rows a second by batch, memory, recall with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    before, after = report["before"], report["after"]
    modalities = list(before["rows_per_second"])
    figure = Figure(figsize=(4 * (len(modalities) + 2), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(modalities) + 2)
    colours = {"before": "#9aa5b1", "after": "#2563a8"}
    names = ["MiB of weights", "MiB of memory"]
    for place, (name, side) in enumerate((("before", before), ("after", after))):
        values = [side["bytes"] / 2**20, side["peak_mib"]]
        at = [number + 0.4 * place for number in range(len(values))]
        bars = axes[0].bar(at, values, 0.38, color=colours[name], label=name)
        axes[0].bar_label(bars, fmt="%.0f", fontsize=8)
    axes[0].set_xticks([n + 0.2 for n in range(len(names))], names)
    axes[0].set_title("size")
    axes[0].legend(frameon=False)
    for axis, modality in zip(axes[1:], modalities, strict=False):
        sizes = list(before["rows_per_second"][modality])
        for place, (name, side) in enumerate((("before", before), ("after", after))):
            values = [side["rows_per_second"][modality][size] for size in sizes]
            at = [number + 0.4 * place for number in range(len(values))]
            bars = axis.bar(at, values, 0.38, color=colours[name])
            axis.bar_label(bars, fmt="%.0f", fontsize=8)
        axis.set_xticks([n + 0.2 for n in range(len(sizes))], [f"batch {s}" for s in sizes])
        axis.set_title(f"{modality}: rows a second")
    for place, (name, side) in enumerate((("before", before), ("after", after))):
        figures = [side["retrieval"][way] for way in WAYS]
        values = [one["R@1"] for one in figures]
        at = [number + 0.4 * place for number in range(len(values))]
        low = [max(0.0, one["R@1"] - one.get("R@1_low", one["R@1"])) for one in figures]
        high = [max(0.0, one.get("R@1_high", one["R@1"]) - one["R@1"]) for one in figures]
        axes[-1].bar(at, values, 0.38, color=colours[name], yerr=[low, high], capsize=3)
    axes[-1].set_xticks([n + 0.2 for n in range(len(WAYS))], list(WAYS.values()), fontsize=8)
    axes[-1].set_title("recall@1, %")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
