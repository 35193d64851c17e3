"""One network for three tasks, or a network for each? easy-VQA.

The tasks: ``answer`` (a question about the picture), ``match`` (does "a red circle" describe it) and
``classify`` (its shape). The recipe ``easy-vqa`` trains each alone, then all three in one network:
every update with the losses of all tasks (weights fixed, by uncertainty, by gradients), or with one
task in turn. Every run sees each picture as often; every figure is of the official test pictures.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _measure import machine, write_results

TASKS = {
    "answer": "{objective: answer, loss: ce}",
    "match": "{objective: match, text: '{description}'}",
    "classify": "{objective: classify, label: shape, text: 'which shape?'}",
}
FIGURES = {"answer": "vqa", "match": "match", "classify": "classification"}
TOGETHER = {
    "all three, weights fixed": [],
    "all three, by uncertainty": ["stages.0.balance=uncertainty"],
    "all three, by gradients": ["stages.0.balance=gradients"],
    "all three, in turn": ["stages.0.sampling=round_robin"],
}


def train_one(tasks: list[str], settings: list[str], seed: int, out: Path) -> dict[str, Any]:
    """Trains some tasks in one network; what was measured."""
    from plait.data import open_dataset
    from plait.evaluation.evaluate.fusion import evaluate_fusion
    from plait.models.fusion.model import FusionModel
    from plait.models.store.storage import load_model
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train
    from plait.training.run.run_folder import RunFolder

    chosen = [
        f"seed={seed}",
        f"stages.0.tasks=[{', '.join(TASKS[task] for task in tasks)}]",
        "evaluation.test=null",
        "evaluation.best=false",
        "evaluation.every=100",
        *settings,
    ]
    start = time.perf_counter()
    train(load_recipe("easy-vqa", chosen), out=out)
    seconds = time.perf_counter() - start
    model = load_model(out)
    assert isinstance(model, FusionModel)
    found = evaluate_fusion(model, open_dataset("easy-vqa"), split="test", seed=seed)
    updates = [r for r in RunFolder(out).records() if r["kind"] == "update"]
    agreements: dict[str, list[float]] = {}
    for record in updates:
        for name, value in record["parts"].items():
            if name.startswith("agreement/"):
                agreements.setdefault(name.removeprefix("agreement/"), []).append(value)
    return {
        "accuracy": {task: found[FIGURES[task]]["accuracy"] for task in tasks},
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
        "updates": len(updates),
        "agreement": {name: float(np.mean(values)) for name, values in agreements.items()},
        "conflicts": {
            name: float(np.mean(np.array(values) < 0)) for name, values in agreements.items()
        },
    }


def row(name: str, runs: list[dict[str, Any]], parameters: int, seconds: float) -> dict[str, Any]:
    """One line of the table; accuracies are means over seeds with their range."""
    found: dict[str, Any] = {"network": name}
    for task in TASKS:
        values = [run["accuracy"][task] for run in runs if task in run["accuracy"]]
        found[f"{task}, %"] = (
            f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""
        )
    return {**found, "parameters": f"{parameters:,}", "seconds": round(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4)
    chosen = parser.parse_args()
    length = [f"stages.0.epochs={chosen.epochs}"]
    runs: dict[str, list[dict[str, Any]]] = {}

    def measure(name: str, tasks: list[str], settings: list[str]) -> None:
        for seed in chosen.seeds:
            with tempfile.TemporaryDirectory() as folder:
                one = train_one(tasks, [*length, *settings], seed, Path(folder) / "run")
            runs.setdefault(name, []).append(one)
            print(name, seed, one, flush=True)

    for task in TASKS:
        measure(f"{task} alone", [task], [])
    for name, settings in TOGETHER.items():
        measure(name, list(TASKS), settings)

    def seconds(name: str) -> float:
        return float(np.mean([run["seconds"] for run in runs[name]]))

    alone = [f"{task} alone" for task in TASKS]
    rows = [row(name, runs[name], runs[name][0]["parameters"], seconds(name)) for name in alone]
    three = [
        {"accuracy": {k: v for name in alone for k, v in runs[name][i]["accuracy"].items()}}
        for i in range(len(chosen.seeds))
    ]
    sizes, took = sum(runs[n][0]["parameters"] for n in alone), sum(seconds(n) for n in alone)
    rows.append(row("the three networks", three, sizes, took))
    rows += [row(name, runs[name], runs[name][0]["parameters"], seconds(name)) for name in TOGETHER]
    fixed = runs[next(iter(TOGETHER))]
    notes = [
        f"{name.replace('-', ' and ')}: mean cosine of the gradients of the shared part "
        f"{np.mean([run['agreement'][name] for run in fixed]):+.2f}, below zero in "
        f"{100 * np.mean([run['conflicts'][name] for run in fixed]):.0f}% of the looks."
        for name in fixed[0]["agreement"]
    ]
    size, took_one = fixed[0]["parameters"], seconds(next(iter(TOGETHER)))
    notes.append(
        f"One network instead of three: {100 * (1 - size / sizes):.0f}% fewer parameters, "
        f"{100 * (1 - took_one / took):.0f}% less time (weights fixed)."
    )
    write_results(
        "multitask",
        "Three tasks in one network, or in three",
        rows,
        about=f"The recipe easy-vqa with {chosen.epochs} epochs; official test pictures; seeds "
        f"{', '.join(map(str, chosen.seeds))}: mean (lowest to highest). In turn: a third of the "
        "updates for each task.",
        machine=machine("timm", "easy-vqa", threads=torch.get_num_threads()),
        notes=notes,
        details=runs,
    )


if __name__ == "__main__":
    main()
