"""Cold start, latency, throughput and memory of a bundle, in a process of its own.

    python -m plait.runtime.measure BUNDLE --engine openvino --precision float32

prints one JSON document; with ``--batches ''`` of the start alone. It needs no torch, so that it runs
where the bundle is to run.
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()

import argparse  # noqa: E402  the clock starts before anything is imported
import io  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Final  # noqa: E402

BATCHES: Final = (1, 8, 32)
LEAST_ROUNDS: Final = 7
Rows = Callable[[int], Mapping[str, Any]]
Run = Callable[[Mapping[str, Any]], Any]
WORDS: Final = "a dog runs over the grass in front of two people with a red umbrella"


def latencies(
    run: Callable[[], Any], *, seconds: float = 1.0, rounds: int = LEAST_ROUNDS
) -> list[float]:
    """Seconds of each call, after two that warm up: ``rounds`` of them, more until ``seconds``."""
    for _ in range(2):
        run()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < rounds or time.perf_counter() < end:
        before = time.perf_counter()
        run()
        found.append(time.perf_counter() - before)
    return found


def figures(found: Sequence[float], batch: int) -> dict[str, float]:
    """``p50_ms``, ``p95_ms`` and ``per_second`` of calls with ``batch`` rows."""
    ordered = sorted(found)
    median = statistics.median(ordered)
    last = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {
        "p50_ms": round(median * 1e3, 4),
        "p95_ms": round(last * 1e3, 4),
        "per_second": round(batch / median, 2),
        "rounds": len(ordered),
    }


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not `ru_maxrss`, which a process has from the one that started it.
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def made_up_files(count: int) -> list[bytes]:
    """JPEGs of 500 x 375 pixels, of smooth blotches."""
    import numpy as np
    from PIL import Image

    files = []
    for number in range(count):
        blotches = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(blotches).resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    return files


def text_of(tokens: int, lengths: Callable[[list[str]], Any]) -> str:
    """Words of at most ``tokens`` tokens."""
    words = (WORDS.split() * (1 + tokens // 4))[:tokens]
    while len(words) > 1 and int(lengths([" ".join(words)])[0]) > tokens:
        words.pop()
    return " ".join(words)


def measure(
    folder: Path,
    engine: str,
    precision: str,
    *,
    threads: int | None = None,
    batches: Sequence[int] = BATCHES,
    tokens: int = 16,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """Opens a bundle and measures each of its towers.

    Returns:
        ``towers``: for each, ``first_seconds`` (opening the graph and one row), ``prepare_ms``
        (decoding or tokenising one row) and ``batches``, see `figures`; ``opened_seconds``,
        ``first_seconds`` and ``peak_bytes`` of the process, from its start on.
    """
    from plait.runtime.bundle import open_bundle

    bundle = open_bundle(folder, engine=engine, precision=precision, threads=threads)
    opened = time.perf_counter() - _STARTED
    towers = {
        modality: (partial(_rows, bundle, entry.inputs, tokens), partial(bundle.run, modality))
        for modality, entry in bundle.manifest.towers.items()
    }
    return {
        "engine": engine,
        "precision": precision,
        "threads": threads,
        "tokens": tokens,
        "opened_seconds": round(opened, 4),
        **of_towers(towers, batches, seconds, _STARTED),
    }


def of_towers(
    towers: Mapping[str, tuple[Rows, Run]], batches: Sequence[int], seconds: float, started: float
) -> dict[str, Any]:
    """``first_seconds``, ``towers`` and ``peak_bytes`` of `measure`.

    Args:
        towers: by name, what makes so many rows, and what computes them.
        batches: rows at once.
        seconds: for each.
        started: when the process began, by the clock of this module.
    """
    found, first = [], None
    for name, (rows, run) in towers.items():
        one = rows(1)
        before = time.perf_counter()
        run(one)
        start = time.perf_counter() - before
        first = time.perf_counter() - started if first is None else first
        after_first = peak_bytes()
        whole = rows(max(batches, default=1))
        measured = []
        for batch in batches:
            part = {key: array[:batch] for key, array in whole.items()}
            calls = latencies(partial(run, part), seconds=seconds)
            measured.append({"batch": batch, **figures(calls, batch)})
        prepare = latencies(partial(rows, 1), seconds=0.0)
        found.append(
            {
                "tower": name,
                "first_seconds": round(start, 4),
                "prepare_ms": round(statistics.median(prepare) * 1e3, 4),
                "peak_bytes_after_first": after_first,
                "batches": measured,
            }
        )
    return {
        "first_seconds": round(first or 0.0, 4),
        "towers": found,
        "peak_bytes": peak_bytes(),
    }


_files: list[bytes] = []


def _rows(bundle: Any, inputs: Mapping[str, Any], tokens: int, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "pixels" in inputs:
        while len(_files) < count:
            _files.extend(made_up_files(count))
        found |= bundle.prepare_images(_files[:count])
    if "ids" in inputs:
        words = text_of(tokens, bundle.text_preprocess.lengths)
        found |= bundle.prepare_texts([words] * count)
    return found


def command_line(program: str, precision: str) -> argparse.ArgumentParser:
    """What such a program takes; ``precision`` is the default."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("path", type=Path, help="a bundle or a run")
    parser.add_argument("--precision", default=precision)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batches", default="1,8,32", help="empty: the start alone")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1.0)
    return parser


def given_settings(given: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `measure` that every such program takes."""
    return {
        "threads": given.threads,
        "batches": [int(batch) for batch in given.batches.split(",") if batch],
        "tokens": given.tokens,
        "seconds": given.seconds,
    }


def answer(program: Callable[[], dict[str, Any]]) -> None:
    """Prints the figures; of a mistake one line, and the exit code says so."""
    from plait.core.errors import UserError

    try:
        print(json.dumps(program()))
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def main() -> dict[str, Any]:
    """The program; see the head of this file."""
    parser = command_line("plait.runtime.measure", "auto")
    parser.add_argument("--engine", default="auto")
    given = parser.parse_args()
    return measure(given.path, given.engine, given.precision, **given_settings(given))


if __name__ == "__main__":
    answer(main)
