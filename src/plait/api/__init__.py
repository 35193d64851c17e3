"""The Python API: each function is one duty of the command line.

import plait

result = plait.train("align", data="pairs/", out="runs/mine")
model = plait.load("runs/mine")
model.similarity(images=["a.jpg"], texts=["a red apple"])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plait.api.data import audit, convert, get_dataset
from plait.api.deployment import bench, compress, export, export_hub
from plait.api.language import ask, caption, draw
from plait.api.retrieval import classify, embed, index, search
from plait.api.sources import Source, load
from plait.api.training import compare, evaluate, train, tune_process
from plait.core.notebook import reported


def doctor() -> list[dict[str, Any]]:
    """What works on this machine: ``name``, ``ok`` (None: a note), ``detail``."""
    from plait.doctor import examine

    return examine()


@reported
def demo(out: Source = "runs/demo", *, seed: int = 0, again: bool = False) -> dict[str, Any]:
    """The main job on emoji pictures; a finished demo in ``out`` is reused unless ``again``."""
    from plait.demo import run_demo

    return run_demo(Path(out), seed=seed, again=again)


__all__ = [
    "ask",
    "audit",
    "bench",
    "caption",
    "classify",
    "compare",
    "compress",
    "convert",
    "demo",
    "doctor",
    "draw",
    "embed",
    "evaluate",
    "export",
    "export_hub",
    "get_dataset",
    "index",
    "load",
    "search",
    "train",
    "tune_process",
]
