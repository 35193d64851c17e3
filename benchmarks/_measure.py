"""What every benchmark shares: fair timing, peak memory, the machine, and writing results.

Rules (docs/objectives.md shows one in use): both sides in one process, taking turns, so that other
load on the machine hits both; a warm-up each; the median of at least five turns; the ratio as the
median of the ratios of neighbouring turns; losses are published too.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plait.core.files import write_json, write_text

RESULTS = Path(__file__).parent / "results"

# The settings of docs/objectives.md that keep glibc from giving pages back between steps.
TUNED_ALLOCATOR = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}


def set_threads(threads: int) -> None:
    """Gives torch ``threads`` threads within an operation and one between operations."""
    import torch

    torch.set_num_threads(threads)


def turns(
    sides: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 7,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side in each round; in a round the sides run one after the other.

    With ``time.process_time`` as the clock and one thread, other load on the machine hardly counts;
    with several threads that clock counts their waiting for one another as work.
    """
    for _ in range(warm_up):
        for run in sides.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            gc.collect()
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], ours: str, theirs: str) -> float:
    """Median over rounds of our seconds divided by theirs."""
    return statistics.median(a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True))


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of some timings, to a tenth of a millisecond."""
    return {
        "median": round(statistics.median(seconds), 4),
        "min": round(min(seconds), 4),
        "max": round(max(seconds), 4),
    }


def peak_above(run: Callable[[], Any]) -> int:
    """Bytes by which this process's memory grows at most while ``run`` runs (Linux).

    The kernel's high-water mark is reset first. Memory freed before and kept by the allocator
    would hide some of the growth: call it in a process that has done nothing else but a small
    warm-up (see `in_own_process`).
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def peak_total() -> int:
    """Bytes of this process's memory at its largest so far (Linux)."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def in_own_process(
    script: str | Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Any:
    """Runs a Python script and returns the JSON document in the last line of its output."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def demo_run(folder: Path) -> Path:
    """A trained run of the demo, made here if it is not there."""
    if not (folder / "model.json").is_file():
        from plait import api

        print(f"making the demo in {folder}", flush=True)
        api.demo(folder)
    return folder


def machine(*packages: str, threads: int | None = None) -> dict[str, Any]:
    """The processor, memory, system and versions that a figure was measured with."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", *packages)},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except FileNotFoundError:
        pass
    return platform.processor() or "unknown"


def command_line() -> str:
    """The command that runs this benchmark, from the root of the repository."""
    script = Path(sys.argv[0])
    return shlex.join(["python", f"benchmarks/{script.name}", *sys.argv[1:]])


def write_results(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    about: str,
    machine: Mapping[str, Any],
    notes: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
) -> None:
    """Writes ``results/<name>.json`` and ``results/<name>.md`` with the command that made them.

    Args:
        name: of the files.
        title: heading of the page.
        rows: the table, in the order of the columns of the first row.
        about: what was measured and how, in a sentence or two.
        machine: as `machine` returns it.
        notes: remarks, each one line.
        details: everything else worth keeping, for the JSON file only.
    """
    command = command_line()
    write_json(
        RESULTS / f"{name}.json",
        {
            "title": title,
            "command": command,
            "about": about,
            "machine": machine,
            "rows": list(rows),
            "notes": list(notes),
            "details": details or {},
        },
    )
    columns = list(rows[0])
    lines = [f"# {title}", "", about, "", f"Made by `{command}` on: {_one_line(machine)}.", ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows
    ]
    lines += ["", *(f"- {note}" for note in notes)]
    write_text(RESULTS / f"{name}.md", "\n".join(lines).rstrip() + "\n")


def _one_line(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = "" if machine["threads"] is None else f"{machine['threads']} threads, "
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{threads}{machine['system']}, Python {machine['python']}, {versions}; "
        f"load average {machine['load_average']}"
    )
