"""Latency and peak memory of a run or a bundle, in a process of its own.

    python -m plait.compression.timing request.json

A bundle is run without torch, so that its memory is what a deployer sees. The parent gives inputs
as files of numpy; the answer is one JSON document on standard output.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plait.runtime.measure import BATCHES, latencies, peak_bytes

LEAST_SECONDS = 0.5  # of each measurement


def measure(
    path: Path,
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    *,
    threads: int,
    batches: Sequence[int] = BATCHES,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Figures of a run (in torch float32) or a bundle (in its own engine).

    Args:
        path: its folder.
        inputs: by modality named inputs of at least as many rows as the largest batch.
        threads: of inference.
        batches: sizes to time.
        seconds: for each size at least; default half a second.

    Returns:
        ``latency_ms`` (by modality and batch, the median), ``rows_per_second`` (the same),
        ``load_seconds``, ``peak_mib`` (of the whole process).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for modality, tensors in inputs.items():
            np.savez(folder / f"{modality}.npz", **tensors)  # type: ignore[arg-type]
        request = {
            "path": str(path.resolve()),
            "inputs": {m: str(folder / f"{m}.npz") for m in inputs},
            "threads": threads,
            "batches": list(batches),
            "seconds": LEAST_SECONDS if seconds is None else seconds,
        }
        (folder / "request.json").write_text(json.dumps(request))
        command = [sys.executable, "-m", "plait.compression.timing", str(folder / "request.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {path} failed: {done.stderr.strip().splitlines()[-1:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def open_runner(path: Path, threads: int) -> Callable[[str, Mapping[str, np.ndarray]], np.ndarray]:
    """(modality, inputs) to unit rows, of a bundle or, in torch float32, of a run."""
    if (path / "manifest.json").is_file():
        from plait.runtime.bundle import open_bundle

        return open_bundle(path, threads=threads).run
    import torch

    from plait.models.alignment.alignment import AlignmentModel
    from plait.models.store.published import is_published, load_published
    from plait.models.store.storage import load_model

    torch.set_num_threads(threads)
    model = load_published(path) if is_published(path) else load_model(path)
    assert isinstance(model, AlignmentModel)
    return torch_runner(model)


def torch_runner(model: Any) -> Callable[[str, Mapping[str, np.ndarray]], np.ndarray]:
    """A model in torch float32 (eager), as a function of named inputs."""
    import torch

    from plait.core.batch import ModalityInput

    model.eval()

    def run(modality: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        named = {name: torch.as_tensor(np.ascontiguousarray(v)) for name, v in tensors.items()}
        with torch.inference_mode():
            rows = model.encode_one(modality, ModalityInput.of(**named))
        found: np.ndarray = rows.float().numpy()
        return found

    return run


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    run = open_runner(Path(request["path"]), request["threads"])
    inputs = {name: dict(np.load(file)) for name, file in request["inputs"].items()}
    for modality, tensors in inputs.items():
        run(modality, {name: value[:1] for name, value in tensors.items()})
    loaded = time.perf_counter() - start
    latency: dict[str, dict[str, float]] = {}
    for modality, tensors in inputs.items():
        latency[modality] = {}
        for size in request["batches"]:
            part = {
                name: np.resize(value, (size, *value.shape[1:])) for name, value in tensors.items()
            }
            found = latencies(partial(run, modality, part), seconds=request["seconds"])
            latency[modality][str(size)] = round(1000 * statistics.median(found), 3)
    rates = {
        modality: {size: round(1000 * int(size) / ms, 2) for size, ms in found.items()}
        for modality, found in latency.items()
    }
    return {
        "latency_ms": latency,
        "rows_per_second": rates,
        "load_seconds": round(loaded, 3),
        "peak_mib": round(peak_bytes() / 2**20, 1),
    }


def main() -> None:
    """Answers the request of the file that is named."""
    request = json.loads(Path(sys.argv[1]).read_text())
    # Libraries print; the parent reads the last line alone.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(_answer(request)), file=out, flush=True)


if __name__ == "__main__":
    main()
