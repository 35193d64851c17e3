"""Checkpoints that a killed run goes on from, to the bit.

A checkpoint is a folder ``checkpoints/step-00000120`` with ``state.safetensors`` and
``state.json``; nothing is pickled. It is written beside its place and renamed, so that a machine
that stops at any moment has whole checkpoints only.

There is no state of random generators in it: every update seeds them anew from the recipe's seed
and its own number (`seed_update`), and the order of rows is a function of seed and epoch.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from plait.core.errors import DataError
from plait.core.files import check_weights, new_folder, read_json, write_json

FOLDER = "checkpoints"
_TENSORS, _STATE = "state.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from.

    Attributes:
        step: updates done in the whole run; names the folder.
        tensors: by flat name: ``model/...``, ``optimiser/...``, ``ema/...``, ``best/...``.
        state: positions, best figures and fingerprints, as JSON.
    """

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with ``prefix/``, without it."""
        start = len(prefix) + 1
        return {k[start:]: v for k, v in self.tensors.items() if k.startswith(f"{prefix}/")}


def write_checkpoint(run: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Writes a checkpoint at once and removes all but the newest ``keep``."""
    target = run / FOLDER / f"step-{checkpoint.step:08d}"
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in checkpoint.tensors.items()
    }
    # overwriting: two saves after the same update, one of them at the end of a stage
    with new_folder(target, overwrite=True) as folder:
        save_file(tensors, folder / _TENSORS)
        write_json(folder / _STATE, {"step": checkpoint.step, **checkpoint.state})
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / FOLDER).glob("step-*"))


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        DataError: a file of it is missing or broken.
    """
    try:
        state = read_json(path / _STATE)
        check_weights(path / _TENSORS)
        tensors = load_file(path / _TENSORS)
    except Exception as error:
        raise DataError(
            f"this checkpoint cannot be read ({error}): remove the folder to go on from an older one",
            path=path,
        ) from error
    return Checkpoint(state["step"], tensors, state)


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run, or None; clears away what a kill left half written."""
    for unfinished in (run / FOLDER).glob(".step-*"):
        shutil.rmtree(unfinished)
    found = checkpoints(run)
    return read_checkpoint(found[-1]) if found else None
