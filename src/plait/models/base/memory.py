"""Building models whose sizes somebody else wrote: refused before the memory is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from plait.core.errors import ModelError, UserError

MOST_SIZE = 10_000_000
"""Of any size in a model's description: features, rows of a table, pixels."""
MOST_LAYERS = 10_000
_LAYERS = frozenset(["layers", "depth", "blocks", "num_hidden_layers", "num_layers", "heads"])
_STEP = 256 << 20  # the memory is looked at once in so many bytes
_SMALL = 64 << 20


def check_sizes(value: Any, place: str = "") -> None:
    """Looks through a model's description (JSON or YAML values) for sizes that no model has.

    Raises:
        ModelError: a size or number of layers above the most, or a number that is none.
    """
    pending: list[tuple[str, Any]] = [(place, value)]
    while pending:
        name, one = pending.pop()
        if isinstance(one, Mapping):
            pending += [(f"{name}.{key}" if name else str(key), part) for key, part in one.items()]
        elif isinstance(one, list | tuple):
            pending += [(name, part) for part in one]
        elif isinstance(one, float) and not math.isfinite(one):
            raise ModelError(f"{name} is {one}: it must be a finite number")
        elif isinstance(one, int):
            most = MOST_LAYERS if name.rsplit(".", 1)[-1] in _LAYERS else MOST_SIZE
            if abs(one) > most and not name.endswith(("seed", "bos_token_id", "eos_token_id")):
                raise ModelError(f"{name[:200]} is {one:.3g}: at most {most:,}")


@contextmanager
def within_memory(what: str, most: int | None = None) -> Iterator[None]:
    """Refuses to make a tensor that there is no memory for, before it is made.

    Args:
        what: is being built, for the message.
        most: bytes of one tensor, besides what the memory allows.

    Raises:
        ModelError: with the shape, what it would take and what is free.
    """
    try:
        with _Watch(what, most):
            yield
    except MemoryError as error:
        raise ModelError(f"{what} does not fit in memory") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error) and "overflow" not in str(error):
            raise
        raise ModelError(f"{what} does not fit in memory: {str(error)[:200]}") from error


class _Watch(TorchDispatchMode):
    """Sees every tensor that is made anew with its shape, in time to refuse."""

    def __init__(self, what: str, most: int | None) -> None:
        super().__init__()
        self.most = most
        self.what, self.made, self.looked = what, 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation, unless it would make too large a tensor."""
        options = kwargs or {}
        place = next(
            (at for at, part in enumerate(func._schema.arguments[:2]) if part.name == "size"), None
        )
        device = options.get("device")
        if place is not None and place < len(args) and str(device) != "meta":
            self._check(args[place], options.get("dtype") or torch.get_default_dtype())
        return func(*args, **options)

    def _check(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        wanted = math.prod(shape) * dtype.itemsize
        self.made += wanted
        if wanted < _SMALL and self.made - self.looked < _STEP:
            return
        self.looked = self.made
        numbers = f"{self.what} has a weight of {' x '.join(f'{size:,}' for size in shape)} numbers"
        if self.most is not None and wanted > self.most:
            raise ModelError(f"{numbers}: {wanted / 1e9:,.1f} GB, many times its file of weights")
        memory = psutil.virtual_memory()
        if wanted > memory.available * 0.9:
            raise ModelError(
                f"{numbers}: {wanted / 1e9:,.1f} GB, and {memory.available / 1e9:,.1f} GB of memory are free"
            )
        if memory.available < memory.total // 50:
            raise ModelError(
                f"{self.what} has more than {self.made / 1e9:,.1f} GB of weights, and "
                f"{memory.available / 1e9:,.1f} GB of memory are free"
            )


@contextmanager
def described(path: Path, weights: os.stat_result | None) -> Iterator[None]:
    """Builds what a model's description says; whatever it lacks or says wrongly is one `ModelError`.

    Args:
        path: the description, for messages.
        weights: of the file of weights: no tensor of the model can be many times as large.
    """
    most = None if weights is None else 8 * weights.st_size + _SMALL
    try:
        with within_memory(f"the model that {path} describes", most):
            yield
    except UserError:
        raise
    except Exception as problem:  # any argument of any layer may be wrong in its own way
        told = f"{type(problem).__name__}: {str(problem)[:200]}"
        raise ModelError(f"{path} doesn't describe a model of this plait: {told}") from problem
