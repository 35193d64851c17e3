"""One model for three tasks against three models for one each: easy-VQA.

Questions, matching of statements and pictures, and the kind of answer (``answer_type``) as a class.
Each single-task model and the joint one are trained on the same pictures for the same number of
epochs; the joint one has one set of encoders and one fusion, which every task shares (a joint
optimisation network), so its parameters and time stand against the sum of the three.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import machine, write_results

TASKS = {
    "questions": "{objective: answer}",
    "matching": "{objective: match}",
    "classes": "{objective: classify, label: answer_type}",
}
MEASURES = {"questions": "vqa", "matching": "match", "classes": "classification"}


def train_one(tasks: list[str], out: Path, epochs: int, *changes: str) -> dict[str, Any]:
    """Trains tasks together; accuracies on the test split, parameters, seconds of training."""
    from plait.models.storage import load_model
    from plait.training.recipe import load_recipe
    from plait.training.run import read_result, train

    listed = ", ".join(TASKS[name] for name in tasks)
    settings = [f"stages.0.tasks=[{listed}]", f"stages.0.epochs={epochs}", "evaluation.metric=null"]
    start = time.perf_counter()
    train(load_recipe("easy-vqa", [*settings, *changes]), out=out)
    seconds = time.perf_counter() - start
    result = read_result(out)
    return {
        "accuracy": {name: result[MEASURES[name]]["accuracy"] for name in tasks},
        "parameters": sum(p.numel() for p in load_model(out).parameters()),
        "training": result["seconds"]["train"],
        "seconds": seconds,
        "records": [
            record["parts"]
            for record in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
            if any(name.startswith("agreement/") for name in record.get("parts", ()))
        ],
    }


def row_of(name: str, found: dict[str, Any]) -> dict[str, Any]:
    accuracy = {f"{task}, %": round(found["accuracy"].get(task, float("nan")), 2) for task in TASKS}
    shown = {key: "" if value != value else value for key, value in accuracy.items()}
    return {
        "model": name,
        **shown,
        "parameters": f"{found['parameters']:,}",
        "training, s": round(found["training"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    epochs = parser.parse_args().epochs
    single, joint = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task in TASKS:
            single[task] = train_one([task], folder / task, epochs)
            print(row_of(task, single[task]), flush=True)
        for balance in ("fixed", "uncertainty", "gradients"):
            changes = [f"stages.0.balance={balance}"]
            joint[balance] = train_one(list(TASKS), folder / balance, epochs, *changes)
            print(row_of(balance, joint[balance]), flush=True)
    apart = {
        "accuracy": {task: one["accuracy"][task] for task, one in single.items()},
        "parameters": sum(one["parameters"] for one in single.values()),
        "training": sum(one["training"] for one in single.values()),
    }
    rows = [row_of("three models together", apart)]
    rows += [row_of(f"one model, weights {balance}", one) for balance, one in joint.items()]
    records = joint["fixed"]["records"]
    signs = {
        name.removeprefix("agreement/"): [r[name] for r in records if name in r]
        for name in dict.fromkeys(k for r in records for k in r if k.startswith("agreement/"))
    }
    fixed = joint["fixed"]
    write_results(
        "multi_task",
        "Three tasks in one model, or in three",
        rows,
        about=f"easy-VQA, {epochs} epochs each, official test pictures; the recipe `easy-vqa`.",
        machine=machine("timm", "easy-vqa", threads=os.cpu_count()),
        notes=[
            f"Sharing saves {100 * (1 - fixed['parameters'] / apart['parameters']):.0f}% of the "
            f"parameters and {100 * (1 - fixed['training'] / apart['training']):.0f}% of the seconds "
            "of training (fixed weights).",
            *(
                f"Gradients of {pair.replace('-', ' and ')}: mean cosine "
                f"{sum(values) / len(values):+.2f}, below zero in "
                f"{100 * sum(v < 0 for v in values) / len(values):.0f}% of {len(values)} measurements."
                for pair, values in signs.items()
            ),
        ],
        details={"single": single, "joint": joint},
    )


if __name__ == "__main__":
    main()
