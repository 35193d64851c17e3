"""Towers as functions of plain tensors: what engines trace and compare.

Shape legend: B samples, D features of an encoder, E features of the shared space.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from plait.core.batch import ModalityInput
from plait.core.files import digest
from plait.encoders.base.base import Encoder
from plait.models.alignment.alignment import Tower

MASK = "mask"


class PooledTower(nn.Module):
    """An encoder as a module from positional tensors to its pooled output.

    Args:
        encoder: the tower's encoder.
        names: what the tensors are, in order; the one named ``mask`` is the padding mask.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.names = encoder, tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        """(B, D) pooled output."""
        return self.encoder(traced_input(self.names, tensors)).pooled


class UnitRows(nn.Module):
    """A tower as a module from positional tensors to its rows of unit length.

    Args:
        tower: encoder and projection.
        names: of the tensors, as for `PooledTower`.
    """

    def __init__(self, tower: Tower, names: Sequence[str]) -> None:
        super().__init__()
        self.tower, self.names = tower, tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        """(B, E)."""
        rows: Tensor = self.tower(traced_input(self.names, tensors))
        return rows


def traced_input(names: Sequence[str], tensors: Sequence[Tensor]) -> ModalityInput:
    """The input of an encoder of named tensors, all samples present.

    `ModalityInput.of` without its checks, which no graph can hold.
    """
    named = dict(zip(names, tensors, strict=True))
    mask = named.pop(MASK, None)
    first = next(iter(named.values()))
    return ModalityInput(named, first.new_ones(first.shape[:1], dtype=torch.bool), mask)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode again after."""
    modes = {part: part.training for part in module.modules()}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def fingerprint(encoder: Encoder) -> str:
    """Changes with any weight, buffer, architecture setting or preprocessing of the encoder."""
    sha = hashlib.sha256(json.dumps(encoder.spec(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        sha.update(memoryview(values.reshape(-1).view(torch.uint8).numpy()))
    return digest(sha.hexdigest(), encoder.preprocess.fingerprint)


def least_cosine(
    left: Float[np.ndarray, "B D"], right: Float[np.ndarray, "B D"]
) -> tuple[float, float]:
    """(smallest, mean) cosine between rows of equal place; 1 where both rows are zero.

    NaN or infinity on either side counts as -1.
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    cosines = np.where(both_zero, 1.0, (left * right).sum(1) / np.where(norms > 0, norms, 1.0))
    cosines = np.where(np.isfinite(cosines), cosines, -1.0)
    return float(cosines.min(initial=1.0)), float(cosines.mean()) if len(cosines) else 1.0
