"""What each allocator setting is worth: torch float32 inference at default and other settings.

Each row is a process of its own with some of the settings of `plait.core.allocator`; the processes
take turns. Page faults per forward pass do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from typing import Any

from _measure import machine, write_results
from _workers import Worker, default_environment, serve, take_turns
from plait.core.allocator import SETTINGS

BATCH = 32
MMAP, TRIM, PAD = (f"MALLOC_{name}_" for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD", "TOP_PAD"))
THP = "THP_MEM_ALLOC_ENABLE"
ROWS = {
    "glibc's and torch's defaults": (),
    "huge pages": (THP,),
    "no mmap": (MMAP,),
    "no mmap, no trim": (MMAP, TRIM),
    "no mmap, no trim, large steps": (MMAP, TRIM, PAD),
    "all": tuple(SETTINGS),
}


def work(threads: int, passes: int) -> None:
    """A worker: EfficientNet-Lite0 in float32, random weights."""
    import timm
    import torch

    torch.set_num_threads(threads)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    pixels = torch.rand(BATCH, 3, 224, 224)

    def window() -> dict[str, Any]:
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        with torch.inference_mode():
            for _ in range(passes):
                model(pixels)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        system, user = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
        return {
            "images/s": round(BATCH * passes / seconds, 2),
            "faults a pass": (after.ru_minflt - before.ru_minflt) // passes,
            "system time, %": round(100 * system / (system + user), 1),
            "peak memory, MiB": after.ru_maxrss // 1024,
        }

    serve({"window": window})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker")
    chosen = parser.parse_args()
    if chosen.worker:
        work(chosen.threads, chosen.passes)
        return
    arguments = ["--threads", str(chosen.threads), "--passes", str(chosen.passes)]
    workers = [
        Worker(name, arguments, {**default_environment(), **{key: SETTINGS[key] for key in keys}})
        for name, keys in ROWS.items()
    ]
    found = take_turns(workers, "window", chosen.rounds + 1)  # the first warms up
    for worker in workers:
        worker.close()
    table = []
    for name, windows in found.items():
        middle = {key: statistics.median(w[key] for w in windows[1:]) for key in windows[0]}
        table.append({"settings": name, **middle})
    fastest = max(table, key=lambda row: row["images/s"])
    write_results(
        "allocator",
        "Allocator settings",
        table,
        about=f"EfficientNet-Lite0, torch float32, batches of {BATCH} at 224 pixels; medians of "
        f"{chosen.rounds} windows of {chosen.passes} forward passes that take turns.",
        machine=machine("timm", threads=chosen.threads),
        notes=[
            f"{fastest['settings']}: {fastest['images/s'] / table[0]['images/s']:.1f} times the "
            "defaults.",
            *(
                f"{name}: {', '.join(keys)}"
                for name, keys in ROWS.items()
                if keys and name != "all"
            ),
        ],
        details={"windows": found},
    )


if __name__ == "__main__":
    main()
