"""The files of a saved model: their names, and weights put into a module."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from pathlib import Path

import torch
from torch import Tensor, nn

from plait.core.errors import DataError, ModelError
from plait.core.files import check_weights

CONFIG_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"


def load_weights(model: nn.Module, path: Path, again: Container[str] = ()) -> None:
    """Fills a module from a safetensors file (see `fill`).

    Raises:
        ModelError: a missing or damaged file, or names or shapes that differ, the first named.
    """
    fill(model, read_weights(path), str(path), again)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        ModelError: a missing or damaged file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise ModelError(f"{path} is missing")
    try:
        check_weights(path)
        return load_file(path)
    except DataError as problem:
        raise ModelError(f"{path} is damaged: it {problem.problem}") from problem
    except (SafetensorError, ValueError, KeyError, MemoryError) as problem:
        raise ModelError(f"{path} is damaged: {problem}") from problem


def fill(
    module: nn.Module, state: dict[str, Tensor], where: str, again: Container[str] = ()
) -> None:
    """Copies a state dict into a module; every name and shape must agree.

    Args:
        module: what to fill.
        state: the weights.
        where: they come from.
        again: further names of shared weights, which ``state`` has not.

    Raises:
        ModelError: what is missing, left over or misshapen.
    """
    own = {name: value for name, value in module.state_dict().items() if name not in again}
    problems = [
        f"{len(names)} {what} (first {names[0]!r})"
        for what, names in (
            ("weights are missing", sorted(set(own) - set(state))),
            ("weights are left over", sorted(set(state) - set(own))),
            ("weights have another shape", _misshapen(own, state)),
        )
        if names
    ]
    if problems:
        raise ModelError(f"{where} doesn't fit the model: {'; '.join(problems)}")
    module.load_state_dict(state, strict=False)  # names that stand again are not in it


def _misshapen(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    return [
        f"{name}: {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]


def weights_fingerprint(module: nn.Module) -> str:
    """16 hex digits that change with any weight's name, shape, dtype or value.

    Merged and adapted weights that are equal give equal fingerprints only after merging.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        sha.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]
