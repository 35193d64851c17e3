"""Prepared tensors against what a tower takes, before an engine sees them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from plait.core.errors import DataError
from plait.runtime.manifest import Port, TowerEntry


def checked(
    tensors: Mapping[str, np.ndarray], entry: TowerEntry, modality: str
) -> dict[str, np.ndarray]:
    """The tensors that a tower takes, in its order.

    Raises:
        DataError: one is missing or unknown, or has another dtype or shape; sizes of one name
            must agree.
    """
    if set(tensors) != set(entry.inputs):
        raise DataError(
            f"the {modality} tower takes {' and '.join(entry.inputs)}, not "
            f"{' and '.join(tensors) or 'nothing'}"
        )
    sizes: dict[str, int] = {}
    for name, port in entry.inputs.items():
        array = tensors[name]
        if array.dtype != np.dtype(port.dtype) or not _fits(array.shape, port, sizes):
            shape = ", ".join(map(str, port.shape))
            raise DataError(
                f"{name} of the {modality} tower is {array.dtype} {array.shape}; it takes "
                f"{port.dtype} ({shape})"
            )
    return {name: tensors[name] for name in entry.inputs}


def _fits(shape: tuple[int, ...], port: Port, sizes: dict[str, int]) -> bool:
    if len(shape) != len(port.shape):
        return False
    for size, wanted in zip(shape, port.shape):
        if isinstance(wanted, str):
            wanted = sizes.setdefault(wanted, size)
        if size != wanted:
            return False
    return True
