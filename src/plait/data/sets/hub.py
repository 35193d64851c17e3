"""What the sets that come from the Hugging Face hub share."""

from __future__ import annotations

from typing import Any

from plait.core.errors import DataError
from plait.data.base.dataset import PairDataset
from plait.data.open.open import open_dataset
from plait.data.readers.huggingface import from_hub


def load(name: str, repository: str) -> PairDataset:
    """A set whose tables embed the pictures.

    Raises:
        DataError: the hub cannot be reached.
    """
    try:
        return open_dataset(f"hf/{repository}")
    except DataError as error:
        raise _unreachable(name, repository) from error


def tables(name: str, repository: str, config: str = "") -> dict[str, Any]:
    """Split name to table, of a set that names its pictures by link.

    Raises:
        DataError: the hub cannot be reached.
    """
    try:
        return from_hub(f"hf/{repository}:{config}" if config else f"hf/{repository}")
    except DataError as error:
        raise _unreachable(name, repository) from error


def _unreachable(name: str, repository: str) -> DataError:
    return DataError(
        f"{name} comes from the Hugging Face hub ({repository}), which cannot be reached from "
        "here: connect, or fetch it elsewhere and open its folder; 'openmoji' needs no hub"
    )
