"""Does pretraining help where labels are few? easy-VQA with a tenth of the questions.

Each seed trains UNITER from random weights twice, on the same tenth of the training pictures with
their questions: at once, and after pretraining on all training pictures with statements
(``"{question} {answer}"``): hidden words, matching and word-region alignment. So pretraining sees
all questions with their answers, as texts: the gain tells what is got out of texts about pictures
when only a tenth of the answers may be asked for, not what unlabelled pictures are worth. It is the
difference on the official test questions, with a 95% interval over pictures and seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from _measure import machine, write_results

SIZES = "{kind: uniter, options: {layers: 2, heads: 4, hidden: 512, max_length: 32}}"
MODEL = [
    f"model.fusion={SIZES}",
    "model.towers.text={encoder: scratch/tokens, options: {max_length: 32}, "
    "vocabulary: {kind: word, size: 200}}",
]
SHARED = "train: {image.encoder: full, text.encoder: frozen}, batch_size: 128, together: true"
PRETRAINING = (
    "{name: pretraining, tasks: [{objective: mlm}, {objective: wra}], "
    "text: '{question} {answer}', epochs: %d, schedule: {warmup: 0.05}, " + SHARED + "}"
)
ANSWERS = (
    "{name: answers, tasks: [{objective: answer, loss: bce}], share: 0.1, epochs: %d, "
    "schedule: {warmup: 0.05}, " + SHARED + "}"
)


def train_one(stages: list[str], seed: int, out: Path) -> Any:
    """Trains a list of stages; the trained model."""
    from plait.models.store.storage import load_model
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train

    settings = [
        f"seed={seed}",
        f"stages=[{', '.join(stages)}]",
        "evaluation.test=null",
        "evaluation.best=false",
    ]
    train(load_recipe("easy-vqa", [*MODEL, *settings, "evaluation.every=4"]), out=out)
    return load_model(out)


def right(model: Any) -> np.ndarray:
    """Whether each official test question is answered rightly."""
    from plait.data import open_dataset
    from plait.evaluation.evaluate.answers import asked, predict
    from plait.evaluation.metrics.vqa import vqa_accuracy

    samples = list(open_dataset("easy-vqa").split("test"))
    pictures, questions, answers = asked(samples)
    return vqa_accuracy(predict(model, pictures, questions), answers)


def interval(gains: np.ndarray, groups: np.ndarray, replicates: int = 2000) -> tuple[float, float]:
    """95% interval of the mean gain (seeds, questions), drawing pictures and seeds anew."""
    random = np.random.default_rng(0)
    numbers = np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(numbers, row) for row in gains])
    counts = np.bincount(numbers)
    means = []
    for _ in range(replicates):
        pictures = random.integers(len(counts), size=len(counts))
        seeds = random.integers(len(gains), size=len(gains))
        means.append(sums[seeds][:, pictures].sum() / counts[pictures].sum() / len(gains))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretraining", type=int, default=6, help="epochs on all statements")
    parser.add_argument("--epochs", type=int, default=40, help="on a tenth of the questions")
    chosen = parser.parse_args()
    from plait.data import open_dataset

    answers = ANSWERS % chosen.epochs
    rows, found = [], []
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as folder:
            without = right(train_one([answers], seed, Path(folder) / "without"))
            stages = [PRETRAINING % chosen.pretraining, answers]
            pretrained = right(train_one(stages, seed, Path(folder) / "with"))
        found.append(pretrained - without)
        rows.append(
            {
                "seed": seed,
                "without, %": round(100 * float(without.mean()), 2),
                "pretrained, %": round(100 * float(pretrained.mean()), 2),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    gains = np.stack(found)
    test = open_dataset("easy-vqa").split("test")
    low, high = interval(gains, np.array([sample.group for sample in test]))
    write_results(
        "pretraining",
        "Pretraining, then a tenth of the questions",
        rows,
        about="easy-VQA, UNITER with two layers over a ResNet-10 from random weights; official test "
        "questions. See the script for what pretraining sees.",
        machine=machine("timm", "easy-vqa", threads=os.cpu_count()),
        notes=[
            f"Gain {100 * gains.mean():+.2f} points, 95% interval {100 * low:+.2f} to {100 * high:+.2f} "
            "(over pictures and seeds).",
            f"Pretraining {chosen.pretraining} epochs on all pictures; answers {chosen.epochs} epochs.",
        ],
        details={"gain": float(gains.mean()), "low": low, "high": high},
    )


if __name__ == "__main__":
    main()
