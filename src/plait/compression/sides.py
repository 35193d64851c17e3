"""What is compared of both sides: size, cost, recall, speed, memory; and on which data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plait.compression.calibration import Judged, Split
from plait.compression.cost import model_cost, weight_bytes
from plait.compression.quantiser import drift
from plait.compression.timing import BATCHES
from plait.core.errors import DataError
from plait.core.modality import IMAGE, TEXT
from plait.data import open_dataset
from plait.data.base.dataset import PairDataset
from plait.data.base.notes import with_notes
from plait.modalities.image.fast_decode import load_pixels
from plait.models.alignment.alignment import AlignmentModel
from plait.runtime.bundle import open_bundle
from plait.runtime.manifest import MANIFEST, read_manifest
from plait.training.batches.checked import usable
from plait.training.recipe.schema import Recipe
from plait.training.run.run import opened


def preprocesses(model: AlignmentModel) -> dict[str, Any]:
    """How each tower of a model prepares its inputs."""
    return {name: model.tower(name).encoder.preprocess for name in model.modalities}


def dataset_of(
    recipe: Recipe | None,
    data: str | None,
    *,
    root: Sequence[str] = (),
    allow_outside: bool = False,
    encoding: str | None = None,
) -> PairDataset:
    """The pairs to calibrate and judge with. Raises DataError when nothing names them."""
    if data is not None:
        return open_dataset(data, root=root, allow_outside=allow_outside, encoding=encoding)
    if recipe is None or recipe.data.source is None:
        raise DataError("the run names no data to calibrate and judge with: give --data PATH")
    found = opened(recipe)
    return usable(found) if recipe.data.on_bad_row == "skip" else found


def pictured(dataset: PairDataset, split: str) -> PairDataset:
    """The samples of a split that have a picture and a text.

    Raises:
        DataError: none.
    """
    part = dataset.split(split)
    kept = [place for place, s in enumerate(part) if s.image is not None and s.texts]
    if not kept:
        problem = (
            f"no pair in the {split} split: compress calibrates on train, chooses on "
            "validation and reports on test"
        )
        raise DataError(with_notes(problem, dataset.notes))
    return part if len(kept) == len(part) else part.select(kept)


def side(
    path: Path, model: AlignmentModel, judged: Judged, first: Mapping[str, Any]
) -> dict[str, Any]:
    """Size, cost and recall."""
    manifest = path / MANIFEST
    if manifest.is_file():
        entries = read_manifest(path).towers.values()
        size = sum(graph.bytes for entry in entries for graph in entry.graphs)
    else:  # as in memory, without the bank of a correction for hubs, which bundles do not have
        size = sum(weight_bytes(model.tower(name)) for name in model.modalities)
    text = {name: first[name] for name in first if name == TEXT}
    return {
        "bytes": size,
        "multiply_adds": model_cost(model, text),
        "recall": round(judged.recall, 3),
        "retrieval": judged.figures,
    }


def timing_inputs(part: PairDataset, split: Split) -> dict[str, dict[str, np.ndarray]]:
    """The largest batch of pictures, and of texts padded to the longest of them."""
    most = max(BATCHES)
    refs = [sample.image for sample in part if sample.image is not None][:most]
    texts = [text for sample in part for text in sample.texts][:most]
    ids, mask = split.preprocesses[TEXT](texts)
    pixels = load_pixels(refs, split.preprocesses[IMAGE])
    return {IMAGE: {"pixels": pixels}, TEXT: {"ids": ids, "mask": mask}}


def bundle_drift(
    target: Path, threads: int, inputs: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """By tower how much a bundle's answers depend on what else is in a batch (see `drift`)."""
    bundle = open_bundle(target, threads=threads)
    return {name: drift(bundle.session(name), [tensors]) for name, tensors in inputs.items()}


def ratios(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """After by before: bytes and multiply-adds, and rows a second by modality and batch."""
    rates = {
        name: {
            size: round(after["rows_per_second"][name][size] / rate, 2)
            for size, rate in found.items()
        }
        for name, found in before["rows_per_second"].items()
    }
    costs = [sum(side["multiply_adds"].values()) for side in (after, before)]
    return {
        "bytes": round(after["bytes"] / before["bytes"], 4),
        "multiply_adds": round(costs[0] / costs[1], 4),
        "rows_per_second": rates,
    }
