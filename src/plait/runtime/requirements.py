"""`requirements.txt` of a bundle: what it needs to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from plait.core.files import write_text

_HEAD: Final = """\
# What a bundle needs to run. No torch: install plait itself by
#   pip install --no-deps plait
numpy>=1.26
pillow>=11
tokenizers>=0.21
"""
_ENGINES: Final = {
    "openvino": "openvino>=2026.0  # x86 processors",
    "onnxruntime": "onnxruntime>=1.20  # any processor",
}


def write_requirements(folder: Path, engines: Sequence[str]) -> None:
    """Writes the file; of several engines that read the bundle, one is enough.

    Args:
        folder: of the bundle.
        engines: by name, the best first.
    """
    first, *others = (_ENGINES[name] for name in engines)
    lines = [first, *(f"# {line}, in its place" for line in others)]
    write_text(folder / "requirements.txt", _HEAD + "\n".join(lines) + "\n")
