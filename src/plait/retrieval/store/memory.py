"""Exact search in memory: the reference of every other store, and fast for small galleries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from plait.retrieval.store.filters import Filter
from plait.retrieval.store.predicate import seen_by_filters, to_predicate
from plait.retrieval.store.store import Hit, Row, check_k, check_rows, check_vector


class MemoryStore:
    """Rows in a list, vectors in one matrix.

    Args:
        dim: features of a vector.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._rows: list[Row] = []
        self._vectors = np.zeros((0, dim), dtype=np.float32)
        self._told: list[dict[str, str | None]] = []

    @property
    def dim(self) -> int:
        """Features of a vector."""
        return self._dim

    def __len__(self) -> int:
        return len(self._rows)

    def upsert(self, rows: Sequence[Row]) -> None:
        """Puts rows in; all older rows with any of their ids go."""
        check_rows(rows, self.dim)
        replaced = {row.id for row in rows}
        self._set([row for row in self._rows if row.id not in replaced] + list(rows))

    def delete(self, ids: Sequence[str]) -> int:
        """Takes out all rows with these ids; returns how many ids there were."""
        gone = set(ids)
        found = {row.id for row in self._rows} & gone
        self._set([row for row in self._rows if row.id not in gone])
        return len(found)

    def _set(self, rows: list[Row]) -> None:
        self._rows = sorted(rows, key=lambda row: row.key)
        vectors = [row.vector.astype(np.float32) for row in self._rows]
        stacked = np.array(vectors, dtype=np.float32).reshape(-1, self.dim)
        self._vectors = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
        self._told = [seen_by_filters(row) for row in self._rows]

    def search(self, vector: Float[np.ndarray, " D"], k: int, where: Filter | None) -> list[Hit]:
        """The ``k`` best rows that pass the filter, best first, equal scores by key."""
        check_vector(vector, self.dim, "the query")
        check_k(k)
        k = min(k, max(1, len(self)))
        query = vector.astype(np.float32) / np.linalg.norm(vector.astype(np.float32))
        scores = self._vectors @ query
        kept = np.arange(len(self._rows))
        if where is not None:
            passes = to_predicate(where)
            kept = kept[[passes(told) for told in self._told]]
        order = kept[np.argsort(-scores[kept], kind="stable")[:k]]  # rows are in the order of keys
        return [Hit(self._rows[place], float(scores[place])) for place in order]

    def rows(self, ids: Sequence[str] | None = None) -> list[Row]:
        """Rows by key; all of them, or those with these ids."""
        if ids is None:
            return list(self._rows)
        wanted = set(ids)
        return [row for row in self._rows if row.id in wanted]

    def paths(self) -> dict[str, str | None]:
        """The path of each id, without reading a vector."""
        return {row.id: row.path for row in self._rows}

    def facts(self, most: int) -> list[dict[str, str | None]]:
        """What filters see of the first ``most`` rows."""
        return self._told[:most]

    def optimize(self) -> None:
        """Nothing to give back."""


def passing(where: Filter, rows: Iterable[Row]) -> list[bool]:
    """Which rows pass a filter."""
    passes = to_predicate(where)
    return [passes(seen_by_filters(row)) for row in rows]
