"""A script and profiles that build TensorRT engines from a bundle's graphs.

TensorRT compiles for the very GPU it runs on, so that engines are built where they are used.
Nothing here needs TensorRT, and nothing here has been run on a machine that has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from plait.core.files import write_json, write_text
from plait.runtime.manifest import Manifest, Port

FOLDER: Final = "tensorrt"
BATCHES: Final = (1, 8, 32)
"""The least, the usual and the largest batch of a profile."""

_HEAD: Final = """\
#!/bin/sh
# Builds TensorRT engines from the graphs of this bundle.
#
# NEEDS: an NVIDIA GPU and TensorRT 10 or later, whose program `trtexec` it calls. It was not run
# where the bundle was made. Compare the engines' output with parity.json's before you rely on it:
# --fp16 changes values by some thousandths.
#
#   sh tensorrt/build.sh            writes tensorrt/*.plan
set -eu
cd "$(dirname "$0")/.."
command -v trtexec >/dev/null || {
    echo "trtexec is not on the PATH: install NVIDIA TensorRT on a machine with its GPU" >&2
    exit 2
}
"""


def write_tensorrt(folder: Path, manifest: Manifest, longest: int) -> None:
    """Writes ``tensorrt/build.sh`` and ``tensorrt/profiles.json`` into a bundle."""
    profiles = {name: profile(entry.inputs, longest) for name, entry in manifest.towers.items()}
    lines = [_HEAD]
    for name, entry in manifest.towers.items():
        file = next(g.file for g in entry.graphs if (g.format, g.precision) == ("onnx", "float32"))
        shapes = [
            f"--{bound}Shapes={','.join(_argument(port, shape) for port, shape in ports.items())}"
            for bound, ports in profiles[name].items()
        ]
        options = [f"--onnx={file}", *shapes, "--fp16", f"--saveEngine={FOLDER}/{name}.plan"]
        lines.append("trtexec " + " \\\n    ".join(options) + "\n")
    write_text(folder / FOLDER / "build.sh", "\n".join(lines))
    write_json(
        folder / FOLDER / "profiles.json",
        {"needs": "an NVIDIA GPU with TensorRT 10 or later", "profiles": profiles},
    )


def profile(inputs: Mapping[str, Port], longest: int) -> dict[str, dict[str, list[int]]]:
    """By bound (``min``, ``opt``, ``max``) the shape of each input."""
    lengths = (1, max(1, min(16, longest)), max(1, longest))
    found: dict[str, Any] = {}
    for bound, batch, length in zip(("min", "opt", "max"), BATCHES, lengths):
        sizes = {"batch": batch, "length": length}
        found[bound] = {
            name: [sizes[size] if isinstance(size, str) else size for size in port.shape]
            for name, port in inputs.items()
        }
    return found


def _argument(name: str, shape: list[int]) -> str:
    return f"{name}:{'x'.join(map(str, shape))}"
