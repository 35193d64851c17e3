"""What every vector store does: rows in, nearest rows out.

Legend: n rows, D features, k results. Vectors are unit rows; a score is a cosine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from plait.core.errors import SearchIndexError, shown
from plait.core.modality import IMAGE
from plait.retrieval.store.filters import Filter

UNIT_TOLERANCE = 1e-2  # bfloat16 engines leave a norm within some 1e-3 of 1


@dataclass(frozen=True)
class Row:
    """One vector with what it stands for.

    Attributes:
        id: of the sample.
        vector: (D,) of unit length.
        modality: of what was embedded.
        texts: the sample's texts; of a text row that text alone.
        path: the picture's file: absolute, or relative to the index.
        language: of a text row.
        metadata: any JSON.
        number: which of the sample's texts a text row is; 0 otherwise.
    """

    id: str
    vector: np.ndarray
    modality: str = IMAGE
    texts: tuple[str, ...] = ()
    path: str | None = None
    language: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0

    @property
    def key(self) -> str:
        """One of its kind in an index."""
        return f"{self.modality}/{self.number}/{self.id}"


@dataclass(frozen=True)
class Hit:
    """A row that was found, and its cosine to the query."""

    row: Row
    score: float


@runtime_checkable
class VectorStore(Protocol):
    """Rows by key, searched by cosine. All stores pass ``tests/retrieval/store/test_stores.py``."""

    @property
    def dim(self) -> int:
        """Features of a vector."""

    def __len__(self) -> int: ...

    def upsert(self, rows: Sequence[Row]) -> None:
        """Puts rows in; all older rows with any of their ids go, in one step."""

    def delete(self, ids: Sequence[str]) -> int:
        """Takes out all rows with these ids; returns how many ids there were."""

    def search(self, vector: Float[np.ndarray, " D"], k: int, where: Filter | None) -> list[Hit]:
        """The ``k`` best rows that pass the filter, best first, equal scores by key."""

    def rows(self, ids: Sequence[str] | None = None) -> list[Row]:
        """Rows by key; all of them, or those with these ids."""

    def paths(self) -> dict[str, str | None]:
        """The path of each id, without reading a vector."""

    def facts(self, most: int) -> list[dict[str, str | None]]:
        """What filters see of ``most`` rows (see `plait.retrieval.store.predicate`), in any order."""

    def optimize(self) -> None:
        """Gives back the space of what was replaced and deleted."""


def check_rows(rows: Sequence[Row], dim: int) -> None:
    """Refuses rows that do not belong into a store of ``dim`` features.

    Raises:
        SearchIndexError: another dimension, not of unit length, not finite, or the same key twice.
    """
    seen: set[str] = set()
    for row in rows:
        check_vector(row.vector, dim, f"the vector of {shown(row.id)}")
        if row.key in seen:
            raise SearchIndexError(f"two rows with the id {shown(row.id)}: ids must differ")
        seen.add(row.key)


def check_vector(vector: np.ndarray, dim: int, name: str) -> None:
    """Refuses a vector that cannot be compared with those of a store.

    Raises:
        SearchIndexError: another dimension, not finite, or not of unit length.
    """
    if vector.shape != (dim,):
        raise SearchIndexError(f"{name} has the shape {vector.shape}; the index holds ({dim},)")
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not abs(norm - 1) <= UNIT_TOLERANCE:  # also true for NaN
        raise SearchIndexError(f"{name} has the length {norm:g}; it must be 1")


def check_k(k: int) -> None:
    """Refuses a number of results that is none, or below 1."""
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise SearchIndexError(f"k must be a number of at least 1, not {shown(k)}")


def columns_of(rows: Iterable[Row]) -> list[str]:
    """All metadata keys, sorted."""
    return sorted({key for row in rows for key in row.metadata})
