"""Seconds to the same validation recall@5 on OpenMoji: the demo's recipe against a tutorial's loop.

Both sides start from the same pretrained encoders (those of the recipe), the same drawn pictures
on disk and the same English names, and measure the same 100 validation emoji. Each runs in a
process of its own, one after the other; building the model counts, evaluation does not.

- plait: the demo's recipe from an empty feature cache, in the environment that the plait command
  sets up.
- tutorial: the loop of many tutorials: everything trains, Adam at 1e-4, batches of 32, one-way
  loss at temperature 0.07, linear projections to 256, pictures decoded by PIL in every epoch at 224
  pixels with ImageNet's statistics, float32, torch's and glibc's defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _measure import machine, write_results
from _workers import Worker, default_environment, serve, tuned_environment

BATCH, RATE, TEMPERATURE, DIM, SIZE = 32, 1e-4, 0.07, 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROBES = 2  # evaluations in an epoch of the tutorial's loop

Curve = list[dict[str, float]]
"""Points of ``seconds`` (of training, from nothing) and ``recall`` (R@5, mean of both ways)."""


def recall_at_5(figures: Mapping[str, Any]) -> float:
    """The mean of both ways, percent."""
    return (figures["text_to_image"]["R@5"] + figures["image_to_text"]["R@5"]) / 2


def demo_recipe(encoder: str | None, seed: int) -> Any:
    """The demo's recipe on English names, evaluated after every epoch."""
    from plait.training.recipe.recipe import load_recipe

    changes = [f"seed={seed}", "data.languages=[en]", "evaluation.every=1", "evaluation.test=null"]
    if encoder:
        changes.append(f"model.towers.image.encoder={encoder}")
    return load_recipe("demo", changes)


def ours(encoder: str | None, seed: int) -> Curve:
    """Trains the demo's recipe; its curve."""
    start = time.perf_counter()
    from plait.training.run import stages
    from plait.training.run.run import train

    curve: Curve = []

    class Timed(stages.Recorder):
        """Notes when the update before an evaluation was done."""

        def updated(self, *arguments: Any) -> None:
            super().updated(*arguments)
            self.at = time.perf_counter()

        def evaluated(self, position: Any, value: float, metrics: Mapping[str, Any]) -> None:
            super().evaluated(position, value, metrics)
            evaluating = sum(spent)
            spent.append(time.perf_counter() - self.at)
            seconds = self.at - start - evaluating
            curve.append({"seconds": seconds, "recall": recall_at_5(metrics["retrieval"])})

    spent: list[float] = []
    stages.Recorder = Timed  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        train(demo_recipe(encoder, seed), out=Path(folder) / "run")
    return curve


def tutorial(encoder: str | None, seed: int, target: float, cap: float) -> Curve:
    """The tutorial's loop, until its recall reaches ``target`` or ``cap`` seconds have passed."""
    start = time.perf_counter()
    import torch
    from torch.nn import functional as F

    from plait.data import open_dataset
    from plait.training.batches.checked import only_languages

    torch.manual_seed(seed)
    dataset = only_languages(open_dataset("openmoji"), ["en"])
    training, validation = list(dataset.split("train")), list(dataset.split("validation"))
    model = Tutorial(demo_recipe(encoder, seed).model.towers)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    curve: Curve = []
    evaluating, epoch = 0.0, 0
    steps = -(-len(training) // BATCH)
    probes = {round(steps * (k + 1) / PROBES) for k in range(PROBES)}
    while True:
        order = torch.randperm(len(training)).tolist()
        for step in range(steps):
            batch = [training[i] for i in order[step * BATCH : (step + 1) * BATCH]]
            model.train()
            images = model.images([sample.image.path for sample in batch])
            texts = model.texts([s.texts[epoch % len(s.texts)] for s in batch])
            logits = images @ texts.T / TEMPERATURE
            loss = F.cross_entropy(logits, torch.arange(len(batch)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            now = time.perf_counter()
            seconds = now - start - evaluating
            if step + 1 in probes or seconds > cap:
                curve.append({"seconds": seconds, "recall": measure(model, validation)})
                evaluating += time.perf_counter() - now
                print(f"tutorial, {seconds:.0f} s: {curve[-1]['recall']:.1f}", flush=True)
                if curve[-1]["recall"] >= target or seconds > cap:
                    return curve
        epoch += 1


def Tutorial(towers: Mapping[str, Any]) -> Any:  # noqa: N802  a class, once torch is loaded
    """The tutorial's model: encoders, linear projections, its own preprocessing."""
    import torch
    from PIL import Image
    from torch import nn
    from torch.nn import functional as F
    from torchvision import transforms

    from plait.core.batch import ModalityInput
    from plait.encoders.base.base import PixelNorm
    from plait.encoders.registry import build_encoder

    transform = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.ToTensor()])

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            options = {**towers["image"].options, "size": SIZE}
            self.image = build_encoder(towers["image"].encoder, modality="image", **options)
            for module in self.image.modules():
                if isinstance(module, PixelNorm):
                    module.mean.copy_(torch.tensor(MEAN).view_as(module.mean))
                    module.std.copy_(torch.tensor(STD).view_as(module.std))
            self.text = build_encoder(
                towers["text"].encoder, modality="text", **towers["text"].options
            )
            self.image_projection = nn.Linear(self.image.width, DIM)
            self.text_projection = nn.Linear(self.text.width, DIM)

        def images(self, paths: Sequence[Path]) -> torch.Tensor:
            pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
            pooled = self.image(ModalityInput.of(pixels=pixels)).pooled
            return F.normalize(self.image_projection(pooled), dim=-1)

        def texts(self, texts: Sequence[str]) -> torch.Tensor:
            ids, mask = (torch.from_numpy(array) for array in self.text.preprocess(texts))
            pooled = self.text(ModalityInput.of(mask=mask, ids=ids)).pooled
            return F.normalize(self.text_projection(pooled), dim=-1)

    return Model()


def measure(model: Any, samples: Sequence[Any]) -> float:
    """Validation R@5 of the tutorial's model."""
    import numpy as np
    import torch

    from plait.evaluation.metrics.retrieval import retrieval

    model.eval()
    with torch.inference_mode():
        images = torch.cat(
            [
                model.images([s.image.path for s in samples[k : k + BATCH]])
                for k in range(0, len(samples), BATCH)
            ]
        )
        texts = model.texts([text for sample in samples for text in sample.texts])
    owners = np.repeat(np.arange(len(samples)), [len(sample.texts) for sample in samples])
    return recall_at_5(retrieval(images.numpy(), texts.numpy(), owners, bootstrap=0))


def seconds_to(curve: Curve, recall: float) -> float | None:
    """When a curve first reached a recall."""
    return next((point["seconds"] for point in curve if point["recall"] >= recall), None)


def compare(plait: Curve, peer: Curve) -> list[dict[str, Any]]:
    """At plait's last recall, and at the best that the tutorial reached: seconds and ratio."""
    last, best = plait[-1]["recall"], max(point["recall"] for point in peer)
    rows = []
    for what, level in (("plait's last", last), ("the tutorial's best", min(best, last))):
        mine, theirs = seconds_to(plait, level), seconds_to(peer, level)
        assert mine is not None
        ratio = (theirs or peer[-1]["seconds"]) / mine
        rows.append(
            {
                "validation R@5": f"{level:.1f}, {what}",
                "plait, s": round(mine, 1),
                "tutorial, s": f"{theirs:.0f}"
                if theirs
                else f"not reached in {peer[-1]['seconds']:.0f}",
                "times sooner": f"{ratio:.1f}" if theirs else f"more than {ratio:.1f}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", help="image encoder of both sides, in place of the recipe's")
    parser.add_argument("--cap", type=float, default=2400.0, help="seconds for the tutorial's loop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", choices=["plait", "tutorial"], help=argparse.SUPPRESS)
    parser.add_argument("--target", type=float, default=100.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = (options.encoder, options.seed)
    if options.worker == "plait":
        serve({"run": lambda: ours(*chosen)})
    elif options.worker == "tutorial":
        serve({"run": lambda: tutorial(*chosen, options.target, options.cap)})
    else:
        run_both(options)


def run_both(options: argparse.Namespace) -> None:
    """Runs the sides one after the other and writes the results."""
    shared = ["--seed", str(options.seed), "--cap", str(options.cap)]
    if options.encoder:
        shared += ["--encoder", options.encoder]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PLAIT_CACHE"] = cache
        from plait.data import open_dataset

        open_dataset("openmoji")  # drawn for both, before the clocks start
        curves = {}
        for name, environment in (
            ("plait", tuned_environment()),
            ("tutorial", default_environment()),
        ):
            target = str(curves["plait"][-1]["recall"]) if curves else "100"
            worker = Worker(name, [*shared, "--target", target], environment)
            curves[name] = worker.ask("run")
            worker.close()
            print(f"{name}: {json.dumps(curves[name][-1])}", flush=True)
    recipe = demo_recipe(options.encoder, options.seed)
    rows = compare(curves["plait"], curves["tutorial"])
    write_results(
        "time_to_recall",
        "Time to the same recall: the demo's recipe against a tutorial's loop",
        rows,
        about=(
            f"OpenMoji, {recipe.model.towers['image'].encoder} and "
            f"{recipe.model.towers['text'].encoder}, validation R@5 (mean of both ways, 100 emoji, "
            "English names). plait: the demo's recipe from an empty feature cache. Tutorial: full "
            "fine-tuning, Adam 1e-4, batches of 32, one-way loss, pictures decoded every epoch, "
            "float32, default allocator. Building the model counts, evaluation does not."
        ),
        machine=machine("openvino", "timm", "transformers", threads=os.cpu_count()),
        notes=["The bar is 20 times sooner at plait's last recall."],
        details={"curves": curves},
    )
    print(Path(__file__).parent.joinpath("results/time_to_recall.md").read_text())


if __name__ == "__main__":
    main()
