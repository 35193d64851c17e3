"""An exported bundle with int8 graphs in place of its float ones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from plait.compression.quantiser import Made
from plait.core.files import write_text
from plait.runtime.choose import READS
from plait.runtime.manifest import Format, graph_of, read_manifest, write_manifest
from plait.runtime.requirements import write_requirements


def with_int8_graphs(bundle: Path, target: Path, graphs: Mapping[str, Made]) -> None:
    """Writes a copy of a float bundle with int8 graphs in place of its own.

    Args:
        bundle: read only.
        target: a new folder.
        graphs: by tower.
    """
    shutil.copytree(bundle, target, dirs_exist_ok=True)
    manifest = read_manifest(target)
    towers = {}
    for name, tower in manifest.towers.items():
        for graph in tower.graphs:
            for file in (graph.file, *graph.parts):
                (target / file).unlink()
        file, parts = _placed(graphs[name], target, name)
        kind: Format = "openvino" if file.endswith(".xml") else "onnx"
        entry = graph_of(target, file, format=kind, precision="int8", parts=parts)
        towers[name] = replace(tower, graphs=(entry,))
    kinds = {graph.format for tower in towers.values() for graph in tower.graphs}
    write_requirements(target, [name for name, formats in READS.items() if kinds <= set(formats)])
    _forget_float(target)
    write_manifest(target, replace(manifest, towers=towers))


def _forget_float(target: Path) -> None:
    """Takes out what an export says of its float graphs."""
    for stale in ("parity.json", "parity.md"):
        (target / stale).unlink(missing_ok=True)
    shutil.rmtree(target / "tensorrt", ignore_errors=True)
    card = target / "README.md"
    if card.is_file():
        said = (
            "`manifest.json` names every file with its SHA-256; `compression.md` tells what int8 "
        )
        said += "costs and saves against the float model."
        parts = card.read_text(encoding="utf-8").split("\n\n")
        kept = [said if "`parity.md`" in part else part for part in parts if "tensorrt" not in part]
        write_text(card, "\n\n".join(kept))


def _placed(made: Made, target: Path, name: str) -> tuple[str, list[str]]:
    """Copies graph files under their names in a bundle."""
    names = []
    for path in (made.file, *made.parts):
        names.append(f"{name}.int8{path.suffix}")
        shutil.copyfile(path, target / names[-1])
    return names[0], names[1:]
