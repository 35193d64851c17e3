"""The model card of a bundle, from what a run folder tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait.core.files import BadJson, read_json
from plait.runtime.manifest import Manifest


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: the JSON files of its run folder; empty where there are none."""

    data: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)


def origin_of(run: str | Path) -> Origin:
    """What a run folder tells; a published checkpoint's folder tells nothing."""
    found = {}
    for name in ("data", "report", "versions"):
        path = Path(run) / f"{name}.json"
        try:
            found[name] = read_json(path) if path.is_file() else {}
        except BadJson:
            found[name] = {}  # a report cut short is no reason not to export
    return Origin(**found)


def model_card(manifest: Manifest, origin: Origin, encoders: Mapping[str, str]) -> str:
    """README.md of a bundle.

    Args:
        manifest: of the bundle.
        origin: where the model comes from.
        encoders: by modality what the encoder is.
    """
    duty = (
        f"puts {' and '.join(manifest.towers)} into one space of {manifest.dim} numbers"
        if manifest.kind == "alignment"
        else f"answers questions about pictures with one of {len(manifest.labels)} answers"
    )
    lines = [
        "---",
        "library_name: plait",
        f"tags: [plait, onnx, {manifest.kind}]",
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"A model that {duty}. Made by plait {manifest.plait}; it runs without torch.",
        "",
        "| part | what |",
        "|---|---|",
        *(f"| {name} | {what} |" for name, what in encoders.items()),
        "",
        *_usage(manifest),
        *data_lines(origin.data),
        *quality_lines(origin.report),
        "## Files",
        "",
        "`manifest.json` names every file with its SHA-256; `parity.md` tells how closely each "
        "graph follows the model in torch, in every engine and precision.",
        "",
        "`tensorrt/` holds a script and profiles for NVIDIA TensorRT. It needs that hardware, and "
        "nobody has run it on the machine that made this bundle.",
        "",
        "## Limits",
        "",
        "The model knows what its data and its pretrained encoders showed it, with their biases. "
        "Its licence follows from the licences of both; plait's own code is Apache-2.0.",
        "",
    ]
    return "\n".join(lines)


def _usage(manifest: Manifest) -> list[str]:
    if manifest.kind == "alignment":
        use = ['bundle.embed(images=["a.jpg"], texts=["a red apple"])']
        if set(manifest.towers) == {"image", "text"}:
            use.append('bundle.classify(["a.jpg"], ["an apple", "a pear"])')
    else:
        use = ['bundle.ask("a.jpg", "what colour is the shape?")']
    return [
        "## Use",
        "",
        "```python",
        "from plait.runtime import open_bundle",
        "",
        'bundle = open_bundle("PATH")',
        *use,
        "```",
        "",
        "`requirements.txt` lists what that needs.",
        "",
    ]


def data_lines(data: Mapping[str, Any]) -> list[str]:
    """The section on training data; none without."""
    if not data:
        return []
    splits = data.get("splits", {})
    parts = ", ".join(f"{count} {name}" for name, count in splits.items())
    # Of a path the name alone: where it lay is nobody's business.
    source = Path(str(data.get("source"))).name
    return [
        "## Training data",
        "",
        f"{source}: {data.get('samples')} samples, {data.get('texts')} texts ({parts}); "
        f"fingerprint {data.get('fingerprint')}.",
        "",
    ]


def quality_lines(report: Mapping[str, Any]) -> list[str]:
    """The section on figures; none without."""
    rows = []
    for direction, figures in (report.get("retrieval") or {}).items():
        rows.append((f"{direction.replace('_', ' ')}, recall@1", figures, "R@1"))
    if "vqa" in report:
        rows.append(("answers", report["vqa"], "accuracy"))
    if not rows:
        return []
    lines = [
        "## Quality",
        "",
        f"In percent, on the {report.get('split', 'test')} split, before export (95% intervals).",
        "",
        "| measure | value |",
        "|---|---|",
    ]
    for name, figures, key in rows:
        low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
        interval = "" if low is None else f" ({low:.1f} to {high:.1f})"
        lines.append(f"| {name} | {figures[key]:.1f}{interval} |")
    return [*lines, ""]
