"""Bundles on one core with 512 MiB: cold start, latency, memory, for each engine and precision.

    python benchmarks/edge.py --bundle BUNDLE [--bundle INT8_BUNDLE] [--run RUN]

Each measurement is a process of its own on one core (`sched_setaffinity`), with one inference
thread and a limit on its private writable memory (RLIMIT_DATA), so that it fails rather than take
more; the most memory that it had resident, files mapped into it included, is asserted as well.

Takes about a minute a bundle, engine and precision.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _measure import machine, write_results
from plait.runtime.choose import runnable
from plait.runtime.manifest import Manifest, read_manifest

STARTS = 5
BATCHES = ("--batches", "1,8")  # 32 pictures at once take more memory than such a device has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, action="append", required=True)
    parser.add_argument("--run", type=Path, help="the run, measured in torch for comparison")
    parser.add_argument("--python", default=sys.executable, help="e.g. of a venv without torch")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    rows, details = [], []
    for bundle in given.bundle:
        manifest = read_manifest(bundle)
        for engine, precision in choices(manifest):
            print(f"{bundle.name}: {engine} {precision}", flush=True)
            found = measured(bundle, engine, precision, given)
            details.append({"bundle": bundle.name, **found})
            rows.append(row_of(manifest, found, given.mib))
    if given.run is not None:
        print("torch", flush=True)
        found = torch_figures(given)
        details.append(found)
        rows.append(row_of(None, found, None))
    mib = given.mib
    write_results(
        "edge",
        f"Bundles on one core with {mib} MiB",
        rows,
        about=(
            f"Processes on one core with one inference thread and at most {mib} MiB of private "
            "writable memory (RLIMIT_DATA). Cold start: from starting Python to the end of the "
            "process, which imports, opens the bundle, and embeds one picture (a JPEG of 500 x 375 "
            f"pixels) and one text; median of {STARTS}, files in the page cache. Latency: the "
            "engine alone, one row, median; preparing is decoding and resizing, or tokenising."
        ),
        machine=machine("openvino", "onnxruntime", threads=1),
        notes=["Of torch no memory is limited."] if given.run is not None else [],
        details={"measured": details},
    )
    over = [row for row in rows if row["fits"] == "no"]
    if over:
        sys.exit(f"{len(over)} of {len(rows)} took more than {mib} MiB")


def choices(manifest: Manifest) -> list[tuple[str, str]]:
    """What every tower of a bundle can run in here."""
    towers = [
        {(one.engine, one.precision) for one in runnable(entry.graphs)}
        for entry in manifest.towers.values()
    ]
    return sorted(set.intersection(*towers))


def measured(bundle: Path, engine: str, precision: str, given: Any) -> dict[str, Any]:
    """Starts alone, then one process with latencies."""
    command = [given.python, "-m", "plait.runtime.measure", str(bundle), "--threads", "1"]
    command += ["--engine", engine, "--precision", precision]
    starts = []
    for _ in range(STARTS):
        before = time.perf_counter()
        start = child([*command, "--batches", ""], given.core, given.mib)
        starts.append(time.perf_counter() - before)
    choice = {"engine": engine, "precision": precision}
    if "failed" in start:
        return {**choice, **start}
    found = child([*command, *BATCHES, "--seconds", str(given.seconds)], given.core, given.mib)
    return {**choice, **found, "starts": starts, "peak_of_start": start["peak_bytes"]}


def torch_figures(given: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "plait.deployment.measure_torch", str(given.run)]
    command += ["--threads", "1"]
    before = time.perf_counter()
    start = child([*command, "--batches", "1", "--seconds", "0"], given.core, None)
    elapsed = time.perf_counter() - before
    found = child([*command, *BATCHES, "--seconds", str(given.seconds)], given.core, None)
    return {**found, "starts": [elapsed], "peak_of_start": start["peak_bytes"]}


def child(command: list[str], core: int, mib: int | None) -> dict[str, Any]:
    """The JSON document of a program on one core; ``failed`` where it ran out of memory."""

    def limited() -> None:
        os.sched_setaffinity(0, {core})
        if mib is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (mib * 2**20, mib * 2**20))

    # One thread in every library: each further one takes 8 MiB of stack from the limit.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=limited, env=environment
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": lines[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(manifest: Manifest | None, found: dict[str, Any], mib: int | None) -> dict[str, Any]:
    files = 0
    if manifest is not None:
        graphs = [graph for entry in manifest.towers.values() for graph in entry.graphs]
        stored = "int8" if found["precision"] == "int8" else "float32"
        files = sum(graph.bytes for graph in graphs if graph.precision == stored)
    row: dict[str, Any] = {
        "model": "run" if manifest is None else manifest.name,
        "engine": f"{found['engine']} {found['precision']}",
        "graphs, MB": f"{files / 1e6:.1f}" if files else "",
    }
    if "failed" in found:
        return {**row, "fits": "no", "cold start, s": f"failed: {found['failed']}"}
    peak = max(found["peak_of_start"], found["peak_bytes"])
    row["fits"] = "" if mib is None else "yes" if peak < mib * 2**20 else "no"
    row["cold start, s"] = f"{statistics.median(found['starts']):.2f}"
    row["peak of start, MiB"] = round(found["peak_of_start"] / 2**20)
    row["peak, MiB"] = round(found["peak_bytes"] / 2**20)
    for tower in found["towers"]:
        points = {point["batch"]: point for point in tower["batches"]}
        name = tower["tower"]
        row[f"{name}, ms"] = f"{points[1]['p50_ms']:.2f}"
        row[f"{name}s a second at 8"] = f"{points[8]['per_second']:.0f}"
        row[f"preparing {name}, ms"] = f"{tower['prepare_ms']:.2f}"
    return row


if __name__ == "__main__":
    main()
