"""Processor time of ``plait search INDEX "words"``, the whole command, each in a new process.

A run of the recipe ``align`` on photographs (MiniLM and EfficientNet-Lite0), its index, then queries:
by what is kept in the cache, and with an empty cache, which is the way that loads the whole model.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _measure import machine, write_results
from _photos import make_photographs

PLAIT = [sys.executable, "-m", "plait"]


def processor_seconds(command: list[str], cache: Path) -> float:
    """User and system time of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PLAIT_CACHE": str(cache)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        pairs, run, index = (str(here / name) for name in ("pairs", "run", "index"))
        make_photographs(here / "pairs", options.photographs)
        training = [*PLAIT, "train", "align", "--data", pairs, "--out", run]
        processor_seconds([*training, "--set", "stages.0.epochs=2"], here / "cache")
        made = processor_seconds([*PLAIT, "index", run, pairs, "--out", index], here / "cache")
        search = [*PLAIT, "search", index, "a dog on the grass"]
        kept = [processor_seconds(search, here / "cache") for _ in range(options.rounds)]
        long = [processor_seconds(search, here / f"empty{n}") for n in range(2)]
    write_results(
        "search_cold",
        "Processor time of a search",
        [
            _row("`plait search`, what it needs kept", kept),
            _row("the same with an empty cache", long),
            _row("`plait index`, which keeps it", [made]),
        ],
        about=f"User and system time of whole commands, on {options.photographs} photographs by the "
        "recipe `align` (MiniLM and EfficientNet-Lite0), each in a new process.",
        machine=machine("torch", "openvino", "lancedb"),
        details={"kept": kept, "long": long, "index": made},
    )


def _row(command: str, seconds: list[float]) -> dict[str, str | int]:
    median, most = statistics.median(seconds), max(seconds)
    return {
        "command": command,
        "n": len(seconds),
        "median, s": f"{median:.2f}",
        "most, s": f"{most:.2f}",
    }


if __name__ == "__main__":
    main()
