"""Latency, throughput and memory of a bundle, or of a run in torch, every choice side by side.

Each engine and precision has a process of its own, so that its memory is its own, and nothing is
warm from another. The figures are of the engine; what decoding or tokenising one row takes stands
beside them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plait.core.errors import PlaitError, UserError
from plait.runtime.choose import runnable
from plait.runtime.manifest import MANIFEST, read_manifest
from plait.runtime.measure import BATCHES


def bench(
    path: str | Path,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    batches: Sequence[int] = BATCHES,
    tokens: int = 16,
    seconds: float = 1.0,
    tell: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Measures a bundle in every engine and precision that this machine has, or a run in torch.

    Args:
        path: a bundle or a run.
        engine: only this one; of a run, ``torch`` is the only one.
        precision: only this one.
        threads: inference threads; by default one a core.
        batches: rows at once.
        tokens: of each text.
        seconds: for each point, and at least seven rounds.
        tell: is told what is measured.

    Returns:
        For each choice what `plait.runtime.measure.measure` gives.

    Raises:
        UserError: no such engine or precision here.
    """
    path = Path(path)
    if min(batches, default=0) < 1 or tokens < 1 or (threads is not None and threads < 1):
        raise UserError("batches, tokens and threads are numbers from 1 on")
    is_bundle = (path / MANIFEST).is_file()
    pairs = _choices_of_bundle(path) if is_bundle else [("torch", "float32"), ("torch", "bfloat16")]
    wanted = [pair for pair in pairs if engine in (None, pair[0]) and precision in (None, pair[1])]
    if not wanted:
        have = ", ".join(" ".join(pair) for pair in pairs)
        raise UserError(f"nothing to measure: {path} runs here in {have}")
    module = "plait.runtime.measure" if is_bundle else "plait.deployment.measure_torch"
    options = ["--batches", ",".join(map(str, batches)), "--tokens", str(tokens)]
    options += ["--seconds", str(seconds)]
    options += [] if threads is None else ["--threads", str(threads)]
    found = []
    for one_engine, one_precision in wanted:
        tell(f"measuring {one_engine} {one_precision}")
        choice = ["--precision", one_precision]
        choice += ["--engine", one_engine] if is_bundle else []
        found.append(_child([sys.executable, "-m", module, str(path), *choice, *options]))
    return found


def _choices_of_bundle(path: Path) -> list[tuple[str, str]]:
    """(engine, precision) that every tower has, in the order of the first."""
    per_tower = [
        [(one.engine, one.precision) for one in runnable(entry.graphs)]
        for entry in read_manifest(path).towers.values()
    ]
    return [pair for pair in per_tower[0] if all(pair in others for others in per_tower)]


def _child(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == UserError.exit_code:
        raise UserError(done.stderr.strip().splitlines()[-1].partition(": ")[2])
    if done.returncode:
        raise PlaitError(f"measuring failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
