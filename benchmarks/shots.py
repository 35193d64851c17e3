"""What examples before a question are worth: a Flamingo trained on interleaved episodes, easy-VQA.

Trains the recipe ``flamingo`` (a run folder may be given instead), then asks the official test
questions of some pictures after 0, 1, 2 and 4 training examples with their pictures and answers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from _measure import machine, write_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a trained run of the recipe flamingo")
    parser.add_argument("--questions", type=int, default=2000, help="test questions to ask")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 1, 2, 4])
    chosen = parser.parse_args()
    from plait.data import open_dataset
    from plait.evaluation.evaluate.bridged import evaluate_bridged
    from plait.models.bridged.model import BridgedModel
    from plait.models.store.storage import load_model
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train

    with tempfile.TemporaryDirectory() as folder:
        run = chosen.run or Path(folder) / "flamingo"
        if chosen.run is None:
            train(load_recipe("flamingo", ["evaluation.test=null"]), out=run)
        model = load_model(run)
    assert isinstance(model, BridgedModel)
    dataset = open_dataset("easy-vqa")
    test, support = dataset.split("test"), dataset.split("train")
    step = max(1, len(test) // chosen.questions)
    asked = test.select(list(range(0, len(test), step))[: chosen.questions])
    rows, details = [], {}
    for shots in chosen.shots:
        found = evaluate_bridged(model, asked, shots=shots, support=support)
        details[str(shots)] = found
        vqa = found["vqa"]
        rows.append(
            {
                "examples": shots,
                "accuracy, %": f"{vqa['accuracy']:.2f} ({vqa['accuracy_low']:.2f} to "
                f"{vqa['accuracy_high']:.2f})",
                "another picture, %": f"{found['controls']['shuffled_pictures']:.2f}",
            }
        )
        print(rows[-1], flush=True)
    write_results(
        "shots",
        "Examples before a question",
        rows,
        about=f"The recipe flamingo on easy-VQA, {len(asked)} of the official test questions; "
        "examples are of the training split; 95% intervals over pictures.",
        machine=machine("timm", "easy-vqa", threads=torch.get_num_threads()),
        details=details,
    )


if __name__ == "__main__":
    main()
