"""A frozen language model learns to see: every bridge at one budget, on easy-VQA.

The recipe ``frozen-lm``: a small decoder reads descriptions and questions as texts, and is frozen.
Then, for each bridge anew, an image encoder and the bridge learn to put pictures where the
descriptions stood. Measured on the official test questions, and with another question's picture.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from _measure import machine, write_results

BRIDGES = {
    "linear": ["model.bridge.kind=linear"],
    "mlp": ["model.bridge.kind=mlp"],
    "pixel_shuffle": ["model.bridge.kind=pixel_shuffle"],
    "resampler": ["model.bridge.kind=resampler"],
    "qformer": ["model.bridge.kind=qformer"],
    "resampler, gated": [
        "model.bridge.kind=resampler",
        "model.bridge.injection=gated",
        "model.bridge.heads=4",
        "model.bridge.head_width=32",
    ],
}


def frozen(out: Path, seed: int) -> float:
    """Trains the language model alone; seconds."""
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train

    recipe = load_recipe("frozen-lm", [f"seed={seed}", "evaluation.test=null"])
    first = recipe.model_copy(update={"stages": recipe.stages[:1]})
    start = time.perf_counter()
    train(first, out=out)
    return time.perf_counter() - start


def seeing(words: Path, settings: list[str], out: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Trains encoder and bridge before the frozen model; what came of it."""
    from plait.models.bridged.model import BridgedModel
    from plait.models.store.storage import load_model
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train

    start_from = f"model.init_from={{run: {words}, leave: [bridge]}}"
    length = f"stages.1.epochs={epochs}"
    recipe = load_recipe("frozen-lm", [f"seed={seed}", start_from, length, *settings])
    second = recipe.model_copy(update={"stages": recipe.stages[1:]})
    start = time.perf_counter()
    result = train(second, out=out)
    seconds = time.perf_counter() - start
    before, after = load_model(words), load_model(out)
    assert isinstance(before, BridgedModel) and isinstance(after, BridgedModel)
    kept = before.language.state_dict()
    same = all(torch.equal(v, kept[k]) for k, v in after.language.state_dict().items())
    return {
        "vqa": result.metrics["vqa"],
        "shuffled": result.metrics["controls"]["shuffled_pictures"],
        "tokens": after.writer.picture_tokens
        if after.injection == "prefix"
        else after.bridge.count(after.picture_tokens),
        "parameters": sum(p.numel() for p in (after.gates or after.bridge).parameters())
        + (sum(p.numel() for p in after.bridge.parameters()) if after.gates else 0),
        "seconds": seconds,
        "frozen": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6, help="of pictures, for every bridge")
    parser.add_argument("--bridges", nargs="+", choices=BRIDGES, default=list(BRIDGES))
    chosen = parser.parse_args()
    rows, details = [], {}
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "words"
        first = frozen(words, chosen.seed)
        for name in chosen.bridges:
            out = Path(folder) / name.replace(", ", "-")
            one = seeing(words, BRIDGES[name], out, chosen.seed, chosen.epochs)
            details[name] = one
            vqa = one["vqa"]
            rows.append(
                {
                    "bridge": name,
                    "accuracy, %": f"{vqa['accuracy']:.2f} ({vqa['accuracy_low']:.2f} to "
                    f"{vqa['accuracy_high']:.2f})",
                    "another picture, %": f"{one['shuffled']:.2f}",
                    "tokens a picture": one["tokens"],
                    "parameters of the bridge": f"{one['parameters']:,}",
                    "language model unchanged": "yes, bitwise" if one["frozen"] else "NO",
                    "seconds": round(one["seconds"]),
                }
            )
            print(rows[-1], flush=True)
    write_results(
        "bridges",
        "Bridges into a frozen language model",
        rows,
        about="The recipe frozen-lm on easy-VQA, 9,673 official test questions, answers written "
        "greedily; 95% intervals over pictures. The encoder, a ResNet-10, starts from random weights "
        f"in every run, seed {chosen.seed}; {chosen.epochs} epochs of pictures each (the recipe has 14).",
        machine=machine("timm", "easy-vqa", threads=torch.get_num_threads()),
        notes=[f"The language model's own training on texts took {first:.0f} s before."],
        details=details,
    )


if __name__ == "__main__":
    main()
