"""Training a published CLIP or SigLIP on: its figures before, and WiSE-FT after.

Source of the last: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (CVPR), weights
(1 - alpha) published + alpha fine-tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plait.core.files import read_json, write_json
from plait.data.base.dataset import PairDataset
from plait.models.alignment.alignment import AlignmentModel
from plait.training.build.start import start_of
from plait.training.recipe.combinations import watched_metric
from plait.training.recipe.schema import Recipe
from plait.training.tasks.validation import watched

BEFORE = "before.json"
ENGINE: dict[str, Any] = {"engine": "torch", "precision": "float32"}
"""Of figures that are compared: no engine's rounding stands between before and after."""

Measure = Callable[[AlignmentModel], Mapping[str, Any]]


def figures_before(
    model: AlignmentModel, measure: Measure, folder: Path, of: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of a model that no update has changed; measured once for a run.

    Args:
        model: just built.
        measure: gives the figures.
        folder: of the run, where they are kept for a run that goes on.
        of: what they depend on; kept figures of something else are measured anew.
    """
    path, device = folder / BEFORE, next(model.parameters()).device
    kept = read_json(path) if path.is_file() else {}
    if kept.get("of") != of:
        kept = {"of": dict(of), "figures": dict(measure(model.to("cpu").eval()))}
        write_json(path, kept)
        model.to(device)
    found: dict[str, Any] = kept["figures"]
    return found


@torch.no_grad()
def mix(model: AlignmentModel, start: Mapping[str, Tensor], alpha: float) -> None:
    """Sets a model to (1 - alpha) start + alpha itself, in place; exactly either at 0 and 1."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.lerp(start[name].to(value), value, alpha))


def wise_ft(model: AlignmentModel, recipe: Recipe, validation: PairDataset) -> dict[str, Any]:
    """Tries shares of the fine-tuned weights on the validation split and keeps the best.

    Of equally good shares the largest is kept: it holds most of what was learned.

    Args:
        model: fine-tuned; it has the chosen weights afterwards.
        recipe: names the published model, the shares and the metric.
        validation: its split ``evaluation.split``, which is not empty.

    Returns:
        ``alpha``, ``metric``, ``split``, ``samples``, and ``path``: by share ``alpha``, ``value``
        of the metric, ``text_to_image`` and ``image_to_text`` R@1, and ``zero_shot`` top-1 where
        the samples have classes.
    """
    assert recipe.model.wise_ft is not None
    start, tuned = start_of(recipe).state_dict(), _copied(model)
    metric = watched_metric(recipe, recipe.stages[-1])
    path: list[dict[str, Any]] = []
    for alpha in sorted(set(recipe.model.wise_ft)):
        model.load_state_dict(tuned)
        mix(model, start, alpha)
        path.append({"alpha": alpha, **_figures(model, validation, metric, recipe)})
    best = max(path, key=lambda row: (row["value"], row["alpha"]))
    model.load_state_dict(tuned)
    mix(model, start, best["alpha"])
    return {
        "alpha": best["alpha"],
        "metric": metric,
        "split": recipe.evaluation.split,
        "samples": len(validation),
        "path": path,
    }


def _copied(model: AlignmentModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _figures(
    model: AlignmentModel, part: PairDataset, metric: str, recipe: Recipe
) -> dict[str, Any]:
    from plait.evaluation import evaluate_alignment

    equal = recipe.data.equal_texts
    found = evaluate_alignment(model, part, bootstrap=0, equal_texts=equal, cache=False, **ENGINE)
    row = {"value": watched(found, metric)}
    row |= {way: figures["R@1"] for way, figures in found["retrieval"].items()}
    return row | ({"zero_shot": found["zero_shot"]["top1"]} if "zero_shot" in found else {})
