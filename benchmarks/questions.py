"""easy-VQA through the installed command: the recipe, and what is left without one modality.

Trains ``plait train easy-vqa`` three times: on pictures and questions, on questions alone, and on
pictures alone, each measured on the 9,673 official test questions by ``plait evaluate --json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import machine, write_results
from _workers import default_environment

PLAIT = Path(sys.executable).with_name("plait")
RUNS = {
    "pictures and questions": ([], None),
    "control: questions alone": (["--set", "data.without=[image]"], "question_only"),
    "control: pictures alone": (["--set", "data.without=[text]"], "picture_only"),
}
"""By row: what is set, and which control of the evaluation measures it."""


def plait(*arguments: object) -> Any:
    """A command's JSON."""
    done = subprocess.run(
        [str(PLAIT), *map(str, arguments), "--json"],
        env=default_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def measure(settings: list[str], control: str | None, folder: Path, seed: int) -> dict[str, Any]:
    """Accuracy on the test questions and seconds of one run."""
    start = time.perf_counter()
    plait("train", "easy-vqa", "--out", folder, "--set", f"seed={seed}", *settings)
    seconds = time.perf_counter() - start
    found = plait("evaluate", folder)
    right = found["vqa"] if control is None else {"accuracy": found["controls"][control]}
    return {"seconds": seconds, "found": found, **right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    rows, details = [], {}
    for name, (settings, control) in RUNS.items():
        for seed in seeds if control is None else seeds[:1]:
            with tempfile.TemporaryDirectory() as folder:
                one = measure(settings, control, Path(folder) / "run", seed)
            details[f"{name}, seed {seed}"] = one
            between = (
                f" ({one['accuracy_low']:.2f} to {one['accuracy_high']:.2f})"
                if "accuracy_low" in one
                else ""
            )
            rows.append(
                {
                    "trained on": name,
                    "seed": seed,
                    "vqa.accuracy, %": f"{one['accuracy']:.2f}{between}",
                    "plait train, s": round(one["seconds"]),
                }
            )
            print(rows[-1], flush=True)
    write_results(
        "questions",
        "easy-VQA",
        rows,
        about="`plait train easy-vqa`, from random weights, on the 9,673 official test questions; in "
        "parentheses 95% bootstrap intervals over pictures. Seconds are those of the whole command.",
        machine=machine("timm", "easy-vqa", threads=os.cpu_count()),
        notes=["The bar is 99.5% in at most 900 s."],
        details=details,
    )


if __name__ == "__main__":
    main()
