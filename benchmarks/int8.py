"""int8 bundles against the same model in torch float32: speed, size, recall, and who else is asked.

    python benchmarks/int8.py --run runs/demo

`plait compress` makes one bundle by NNCF and one for ONNX Runtime of a run (the demo's), calibrated
on its training split, chosen on its validation split. Each side then embeds the same prepared
pictures and texts of the test split, in a process of its own, on the same number of threads; the
sides take turns. The peer is torch in float32, eager, at its default settings, and once more with
the allocator settings of plait's commands.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from _measure import demo_run, machine, write_results
from _workers import (
    Worker,
    default_environment,
    median_ratio,
    serve,
    take_turns,
    tuned_environment,
)

BATCHES = (1, 8, 32)
TORCH, TUNED = "torch float32", "torch float32, tuned allocator"
METHODS = {"nncf": "int8, OpenVINO", "onnx": "int8, ONNX Runtime"}
BARS = {"image": 6.0, "text": 4.0}


def work(path: Path, folder: Path, threads: int, seconds: float) -> None:
    """A worker process: rows a second by request, such as ``image 8``."""
    from plait.compression.timing import open_runner

    run = open_runner(path, threads)
    inputs = {name: dict(np.load(folder / f"{name}.npz")) for name in ("image", "text")}

    def rate(modality: str, size: int) -> float:
        part = {k: np.resize(v, (size, *v.shape[1:])) for k, v in inputs[modality].items()}
        run(modality, part)
        calls, start = 0, time.perf_counter()
        while calls < 3 or time.perf_counter() - start < seconds:
            run(modality, part)
            calls += 1
        return round(calls * size / (time.perf_counter() - start), 2)

    requests: dict[str, Callable[[], Any]] = {
        f"{modality} {size}": (lambda m=modality, s=size: rate(m, s))
        for modality in inputs
        for size in BATCHES
    }
    serve(requests)


def prepared(run: Path, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Test pictures and texts as both sides take them, kept in files for the workers."""
    from plait.compression.calibration import Split
    from plait.compression.sides import dataset_of, pictured, timing_inputs
    from plait.models.store.storage import load_model
    from plait.training.recipe.recipe import read_run_recipe

    model = load_model(run)
    test = pictured(dataset_of(read_run_recipe(run), None), "test")
    preprocesses = {name: model.tower(name).encoder.preprocess for name in model.modalities}
    inputs = timing_inputs(test, Split(test, preprocesses))
    for name, tensors in inputs.items():
        np.savez(folder / f"{name}.npz", **tensors)
    return inputs


def dynamic_drift(
    run: Path, inputs: Mapping[str, Mapping[str, np.ndarray]], folder: Path, threads: int
) -> dict[str, float]:
    """Co-batch drift of dynamic quantisation by ONNX Runtime, which no bundle gets."""
    from plait import api
    from plait.compression.onnx_int8 import quantise_dynamically
    from plait.compression.quantiser import drift
    from plait.deployment.export import export_bundle
    from plait.runtime.sessions import OnnxSession

    export_bundle(api.load(run), folder / "float", name="float")
    found = {}
    for name, tensors in inputs.items():
        file = folder / f"{name}.dynamic.onnx"
        quantise_dynamically(folder / "float" / f"{name}.onnx", file)
        found[name] = drift(OnnxSession(file, "int8", threads=threads), [tensors])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="where the bundles are kept, and found again")
    parser.add_argument("--worker")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.worker:
        work(chosen.path, chosen.folder, chosen.threads, chosen.seconds)
        return
    demo_run(chosen.run)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = chosen.keep or folder
        kept.mkdir(parents=True, exist_ok=True)
        reports = {method: compressed(chosen, method, kept) for method in chosen.methods}
        inputs = prepared(chosen.run, folder)
        dynamic = dynamic_drift(chosen.run, inputs, folder, chosen.threads)
        rates = timed(chosen, folder, {m: kept / m for m in chosen.methods})
    write(chosen, reports, rates, dynamic)


def compressed(chosen: argparse.Namespace, method: str, kept: Path) -> dict[str, Any]:
    """The report of a bundle, which is made if it is not there."""
    from plait import api
    from plait.core.files import read_json

    out = kept / method
    if not out.exists():
        api.compress(
            chosen.run,
            out=out,
            int8=method,
            samples=chosen.samples,
            threads=chosen.threads,
            tell=lambda line: print(f"{method}: {line}", flush=True),
        )
    found: dict[str, Any] = read_json(out / "compression.json")
    return found


def timed(
    chosen: argparse.Namespace, folder: Path, bundles: Mapping[str, Path]
) -> dict[str, dict[str, list[float]]]:
    """By request and side the rows a second of each round."""

    def worker(name: str, path: Path, environment: Mapping[str, str]) -> Worker:
        arguments = ["--path", str(path), "--folder", str(folder)]
        arguments += ["--threads", str(chosen.threads), "--seconds", str(chosen.seconds)]
        return Worker(name, arguments, {**environment, "OMP_NUM_THREADS": str(chosen.threads)})

    workers = [
        worker(TORCH, chosen.run, default_environment()),
        worker(TUNED, chosen.run, tuned_environment()),
        *(worker(METHODS[m], path, default_environment()) for m, path in bundles.items()),
    ]
    requests = [f"{modality} {size}" for modality in ("image", "text") for size in BATCHES]
    found = {request: take_turns(workers, request, chosen.rounds) for request in requests}
    for one in workers:
        one.close()
    return found


def write(
    chosen: argparse.Namespace,
    reports: Mapping[str, Mapping[str, Any]],
    rates: Mapping[str, Mapping[str, list[float]]],
    dynamic: Mapping[str, float],
) -> None:
    rows, ratios = [], {}
    for request, sides in rates.items():
        modality, size = request.split()
        row: dict[str, Any] = {"rows a second": f"{modality}, batch {size}"}
        for side, found in sides.items():
            row[side] = statistics.median(found)
        for method in reports:
            ratio = median_ratio(sides[METHODS[method]], sides[TORCH])
            row[f"{METHODS[method]}, times torch"] = round(ratio, 2)
            ratios[f"{method} {request}"] = round(ratio, 2)
        rows.append(row)
    notes = []
    for method, report in reports.items():
        met = {m: ratios[f"{method} {m} 8"] >= bar for m, bar in BARS.items()}
        lost, size = report["lost"], report["ratios"]["bytes"]
        notes += [
            f"{METHODS[method]}: size {size:.3f} of the float32 weights (bar 0.3: {_met(size <= 0.3)}); "
            f"recall@1 {report['before']['recall']:.2f} to {report['after']['recall']:.2f}, "
            f"{lost['points']:.2f} points lost ({lost['low']:.2f} to {lost['high']:.2f}; bar 1: "
            f"{_met(lost['points'] <= 1)}); batch 8 images {_met(met['image'])} (bar 6 times), texts "
            f"{_met(met['text'])} (bar 4 times).",
            f"{METHODS[method]}: a cosine changes by at most "
            + ", ".join(f"{value:.1e} ({name})" for name, value in report["drift"].items())
            + f" with what else is in the batch (bar 1e-4: {_met(max(report['drift'].values()) <= 1e-4)}).",
        ]
    told = ", ".join(f"{value:.1e} ({name})" for name, value in dynamic.items())
    notes.append(f"Dynamic quantisation by ONNX Runtime, beside it: {told}.")
    write_results(
        "int8",
        "int8 bundles against torch float32",
        rows,
        about=f"The model of `{chosen.run.name}`, {chosen.threads} threads, prepared inputs of the "
        f"test split, texts padded to the longest of 32; medians of {chosen.rounds} rounds of "
        f"{chosen.seconds:g} s in turns. int8 calibrated on {chosen.samples} training samples, "
        "chosen on the validation split, recall on the test split.",
        machine=machine("openvino", "onnxruntime", "nncf", "timm", threads=chosen.threads),
        notes=notes,
        details={"rates": rates, "ratios": ratios, "dynamic": dynamic, "reports": reports},
    )
    print("\n".join(notes))


def _met(yes: bool) -> str:
    return "met" if yes else "NOT met"


if __name__ == "__main__":
    main()
