"""A tower as a float OpenVINO model, which NNCF then quantises.

Straight from torch where that is faithful: the ONNX form of the same tower writes clipped
activations and padding as computations on shapes, which neither NNCF nor the plug-in sees through.

Shape legend: B samples, E features of the shared space.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from plait.compression.quantiser import Inputs, mean_cosine
from plait.core.errors import ModelError
from plait.engines.base import EngineWarning
from plait.engines.openvino_engine import convert_module
from plait.engines.tower import UnitRows, evaluating
from plait.models.alignment.alignment import Tower
from plait.runtime.sessions import OpenVinoSession, import_openvino

FAITHFUL: Final = 0.9999
ROWS: Final = 4  # traced with three of them, compared with all


def float_model(tower: Tower, rows: Sequence[Inputs], graph: Path) -> Any:
    """An ``openvino.Model`` of unit rows, converted from torch, or read from ONNX.

    Args:
        tower: read only.
        rows: inputs of one row each.
        graph: the exported ONNX graph, taken with an `EngineWarning` where conversion fails, or its
            cosine to torch is below 0.9999.

    Raises:
        MissingExtra: openvino is not installed.
    """
    sample = joined(rows[:ROWS])
    kept = tower.encoder.preprocess
    own = UnitRows(copy.deepcopy(tower, {id(kept): kept}), list(sample))
    with evaluating(own), torch.inference_mode():
        expected = own(*(torch.as_tensor(value) for value in sample.values())).numpy()
    try:
        model = convert_module(own, sample)
        found = OpenVinoSession(model.clone(), "float32").run(sample)
        if found.shape == expected.shape and mean_cosine(found, expected) >= FAITHFUL:
            return model
        reason = f"it gives rows of shape {found.shape}, or other ones than torch"
    except (ModelError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
    warnings.warn(
        f"the {tower.encoder.modality} tower goes to OpenVINO by ONNX: {reason}",
        EngineWarning,
        stacklevel=2,
    )
    return import_openvino().Core().read_model(graph)


def joined(rows: Sequence[Inputs]) -> dict[str, np.ndarray]:
    """Rows of one sample each as one batch; texts are padded with zeros."""
    if len(rows) < 2:
        rows = [rows[0], rows[0]]
    found: Mapping[str, list[np.ndarray]] = {name: [row[name] for row in rows] for name in rows[0]}
    batch = {}
    for name, parts in found.items():
        if parts[0].ndim == 2:
            longest = max(part.shape[1] for part in parts)
            parts = [np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts]
        batch[name] = np.concatenate(parts)
    return batch
