"""kill -9 at five random moments, resume, and compare the weights with those of an unbroken run.

Two recipes: ``scratch`` (both encoders train from files, with augmentation, a moving average and
gradient caching) and ``align`` (frozen encoders: a kill may hit the pass that computes features).
The broken and the unbroken run have caches of their own, so that nothing of one reaches the other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import machine, write_results
from _photos import make_photographs

PLAIT = Path(sys.executable).with_name("plait")
KILLS = 5
RECIPES = {
    "scratch": [
        "stages.0.epochs=10",
        "stages.0.batch_size=32",
        "stages.0.chunk=12",
        "stages.0.ema=0.9",
        "stages.0.augment=[{kind: flip}]",
        "checkpoints.steps=7",
    ],
    "align": [
        "stages.0.epochs=300",
        "stages.0.batch_size=64",
        "evaluation.patience=null",
        "checkpoints.steps=50",
    ],
}


def command(recipe: str, data: Path, out: Path) -> list[str]:
    """The command, going on where something was begun."""
    settings = [part for setting in RECIPES[recipe] for part in ("--set", setting)]
    again = ["--resume"] if out.is_dir() else []
    return [str(PLAIT), "train", recipe, "--data", str(data), "--out", str(out), *settings, *again]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "PLAIT_CACHE": str(cache)}


def digest_of(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def updates(run: Path) -> int:
    log = run / "metrics.jsonl"
    return log.read_bytes().count(b'"kind": "update"') if log.exists() else 0


def finish(recipe: str, data: Path, out: Path, cache: Path) -> float:
    """Runs to the end; seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        command(recipe, data, out), env=environment(cache), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}: {done.stderr}")
    return time.perf_counter() - start


def newest(run: Path) -> int:
    """Updates in the newest checkpoint; -1 without one."""
    steps = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]
    return max(steps, default=-1)


def killed(
    recipe: str, data: Path, out: Path, cache: Path, reach: int, after: float
) -> dict[str, Any]:
    """Starts or goes on; kills ``after`` seconds from the first checkpoint of ``reach`` updates."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command(recipe, data, out),
        env=environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while newest(out) < reach and process.poll() is None:
        time.sleep(0.005)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
    if process.returncode != -signal.SIGKILL:
        assert process.stderr is not None
        raise SystemExit(
            f"ended by itself ({process.returncode}): {process.stderr.read().decode()}"
        )
    return {
        "seconds after start": round(time.perf_counter() - start, 1),
        "newest checkpoint": newest(out),
        "begun": out.is_dir(),
    }


def compare(recipe: str, data: Path, folder: Path, dice: random.Random) -> dict[str, Any]:
    whole, broken = folder / f"{recipe}-whole", folder / f"{recipe}-broken"
    cache = folder / f"{recipe}-cache-broken"
    total = finish(recipe, data, whole, folder / f"{recipe}-cache-whole")
    seconds = json.loads((whole / "report.json").read_text())["seconds"]
    every = int(RECIPES[recipe][-1].rpartition("=")[2])
    interval = seconds["train"] / updates(whole) * every
    before = total - seconds["train"] - seconds["evaluate"]
    # One moment in the start (imports, data, features of frozen towers), the others between two
    # checkpoints of the training, early enough that a machine with less load does not finish first.
    moments = [(-1, dice.uniform(0.1, 0.9) * before)]
    for reach in sorted(dice.randrange(int(0.8 * updates(whole))) for _ in range(KILLS - 1)):
        moments.append((reach // every * every, dice.uniform(0, 0.5 * interval)))
    kills = [killed(recipe, data, broken, cache, *moment) for moment in moments]
    finish(recipe, data, broken, cache)
    same = digest_of(whole) == digest_of(broken)
    logs = [(run / "metrics.jsonl").read_bytes() for run in (whole, broken)]
    return {
        "recipe": recipe,
        "updates": updates(whole),
        "newest checkpoint at each kill": " ".join(
            str(kill["newest checkpoint"]) for kill in kills
        ),
        "weights": "bitwise equal" if same else "DIFFERENT",
        "metrics.jsonl": "bitwise equal" if logs[0] == logs[1] else "DIFFERENT",
        "sha256 of the weights": digest_of(broken)[:16],
        "kills": kills,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: the clock")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else time.time_ns() % 100_000
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "photographs"
        make_photographs(data, chosen.images)
        with (data / "metadata.csv").open() as file:
            header, *rows = file.read().splitlines()
        for number in range(0, len(rows), 8):  # the maker of photographs puts all into train
            rows[number] = rows[number].removesuffix("train") + "validation"
            rows[number + 1] = rows[number + 1].removesuffix("train") + "test"
        (data / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")
        found = [compare(recipe, data, folder, dice) for recipe in chosen.recipes]
    write_results(
        "resume",
        "kill -9 at five random moments, then resume",
        [{key: value for key, value in row.items() if key != "kills"} for row in found],
        about=f"`plait train RECIPE` on {chosen.images} photographs, once unbroken, once killed "
        f"{KILLS} times and resumed, with caches of their own.",
        machine=machine("openvino", "accelerate"),
        notes=[
            f"Moments drawn with seed {seed}; -1: killed before the first checkpoint.",
            "`metrics.jsonl` is compared too: the resumed run tells of the same updates.",
        ],
        details={"kills": {row["recipe"]: row["kills"] for row in found}, "seed": seed},
    )
    print(json.dumps(found, indent=2))
    return 0 if all(row["weights"] == "bitwise equal" for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
