"""Bundles on one core with 512 MiB: cold start, latency, memory, for each engine and precision.

    python benchmarks/edge.py [--bundle BUNDLE [--bundle INT8_BUNDLE] [--run RUN]]

Each measurement is a process of its own on one core (`sched_setaffinity`) with one inference
thread. The most memory that it ever had resident, files mapped into it included, is what the
kernel counted (VmHWM). A bundle that fits in no engine and precision is a failure.

Takes about 20 s a bundle, engine and precision.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _measure import demo_run, machine, write_results
from plait import api
from plait.runtime.choose import runnable
from plait.runtime.manifest import Manifest, read_manifest

STARTS = 5
BATCHES = ("--batches", "1,4")  # more pictures at once take more memory than such a device has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, action="append", help="default: the demo's")
    parser.add_argument("--run", type=Path, help="the run, measured in torch for comparison")
    parser.add_argument("--python", default=sys.executable, help="e.g. of a venv without torch")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    if not given.bundle:
        given.run = demo_run(Path("runs/demo"))
        given.bundle = [Path("bundles/demo")]
        if not given.bundle[0].exists():
            api.export(given.run, given.bundle[0])
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
            "Processes on one core with one inference thread; peak is the most memory that was "
            f"ever resident, mapped files included (VmHWM), and fits up to {mib} MiB. Cold start: "
            "from starting Python to the end of the process, which imports, opens the bundle, and embeds one picture (a JPEG of 500 x 375 "
            f"pixels) and one text; median of {STARTS}, files in the page cache. Latency: the "
            "engine alone, one row, median; preparing is decoding and resizing, or tokenising."
        ),
        machine=machine("openvino", "onnxruntime", threads=1),
        notes=[f"Bundles ran with {installed(given.python)}."],
        details={"measured": details},
    )
    for bundle in given.bundle:
        name = read_manifest(bundle).name
        if not any(row["fits"] == "yes" for row in rows if row["model"] == name):
            sys.exit(f"{name} fits into {mib} MiB in no engine and precision")


def installed(python: str) -> str:
    """What an environment has of the engines, and whether it has torch."""
    script = (
        "from importlib.metadata import distributions as d; print({x.name: x.version for x in d()})"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    found = ast.literal_eval(done.stdout)
    parts = [f"{name} {found[name]}" for name in ("onnxruntime", "openvino") if name in found]
    return ", ".join([*parts, f"torch {found['torch']} there" if "torch" in found else "no torch"])


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
        start = child([*command, "--batches", ""], given.core)
        starts.append(time.perf_counter() - before)
    choice = {"engine": engine, "precision": precision}
    if "failed" in start:
        return {**choice, **start}
    found = child([*command, *BATCHES, "--seconds", str(given.seconds)], given.core)
    return {**choice, **found, "starts": starts, "peak_of_start": start["peak_bytes"]}


def torch_figures(given: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "plait.deployment.measure_torch", str(given.run)]
    command += ["--threads", "1"]
    before = time.perf_counter()
    start = child([*command, "--batches", "1", "--seconds", "0"], given.core)
    elapsed = time.perf_counter() - before
    found = child([*command, *BATCHES, "--seconds", str(given.seconds)], given.core)
    return {**found, "starts": [elapsed], "peak_of_start": start["peak_bytes"]}


def child(command: list[str], core: int) -> dict[str, Any]:
    """The JSON document of a program on one core; ``failed`` where there is none."""

    def on_one_core() -> None:
        os.sched_setaffinity(0, {core})

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=on_one_core,
        env=environment,
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
        row[f"{name}s a second at 4"] = f"{points[4]['per_second']:.0f}"
        row[f"preparing {name}, ms"] = f"{tower['prepare_ms']:.2f}"
    return row


if __name__ == "__main__":
    main()
