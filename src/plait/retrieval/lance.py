"""Vectors on disk in LanceDB: versioned, embedded, no server, exact below 100,000 rows.

One table ``rows``. ``metadata`` holds the row's JSON as it was given; ``facts`` its scalar values as
text in Lance's JSON type, for filters (see `plait.retrieval.predicate`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from plait.core.errors import SearchIndexError
from plait.retrieval.filters import Filter
from plait.retrieval.predicate import facts, sql_string, to_sql
from plait.retrieval.store import Hit, Row, check_k, check_rows, check_vector

TABLE = "rows"
INDEX_FROM = 100_000  # rows; below, a scan is exact and fast enough
PROBES = 40  # partitions that a search looks into, once there is an index
KEPT = timedelta(minutes=10)  # how long replaced versions stay for readers that opened them
_COLUMNS = ["key", "id", "modality", "number", "texts", "path", "language", "metadata"]


class LanceStore:
    """A LanceDB table in a folder.

    Args:
        folder: where the table is, or will be.
        dim: features of a vector.
        create: make a new table; False opens what is there.

    Raises:
        SearchIndexError: there is none, or it holds vectors of another dimension.
    """

    def __init__(self, folder: Path, dim: int, *, create: bool = False) -> None:
        self._dim = dim
        database = _lancedb().connect(str(folder))
        if create:
            self._table = database.create_table(TABLE, schema=_schema(dim))
            return
        try:
            self._table = database.open_table(TABLE)
        except (ValueError, FileNotFoundError) as error:
            raise SearchIndexError(f"{folder} holds no table of vectors: index again") from error
        stored = self._table.schema.field("vector").type.list_size
        if stored != dim:
            raise SearchIndexError(f"{folder} holds vectors of {stored} features, not {dim}")

    @property
    def dim(self) -> int:
        """Features of a vector."""
        return self._dim

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def upsert(self, rows: Sequence[Row]) -> None:
        """Puts rows in; all older rows with any of their ids go, in one commit."""
        check_rows(rows, self.dim)
        if not rows:
            return
        ids = sorted({row.id for row in rows})
        if not self._table.count_rows(_among(ids)):  # appending is several times faster
            self._table.add(_to_arrow(rows, self.dim))
        else:
            merge = self._table.merge_insert("key").when_matched_update_all()
            merge = merge.when_not_matched_insert_all()
            merge = merge.when_not_matched_by_source_delete(_among(ids))
            merge.execute(_to_arrow(rows, self.dim))
        self._keep_index()

    def delete(self, ids: Sequence[str]) -> int:
        """Takes out all rows with these ids; returns how many ids there were."""
        if not ids:
            return 0
        found = {row.id for row in self.rows(ids)}
        if found:
            self._table.delete(_among(sorted(found)))
        return len(found)

    def search(self, vector: Float[np.ndarray, " D"], k: int, where: Filter | None) -> list[Hit]:
        """The ``k`` best rows that pass the filter, best first, equal scores by key."""
        check_vector(vector, self.dim, "the query")
        check_k(k)
        query = self._table.search(vector.astype(np.float32)).distance_type("cosine").limit(k)
        query = query.nprobes(PROBES)
        if where is not None:
            query = query.where(to_sql(where), prefilter=True)
        found = query.select([*_COLUMNS, "vector", "_distance"]).to_arrow().to_pylist()
        hits = [Hit(_to_row(record), 1.0 - float(record["_distance"])) for record in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.row.key))

    def rows(self, ids: Sequence[str] | None = None) -> list[Row]:
        """Rows by key; all of them, or those with these ids."""
        query = self._table.search()
        if ids is not None:
            query = query.where(_among(sorted(set(ids))))
        found = query.select([*_COLUMNS, "vector"]).to_arrow().to_pylist()
        return sorted((_to_row(record) for record in found), key=lambda row: row.key)

    def optimize(self) -> None:
        """Merges fragments; drops versions that no running reader can still need."""
        self._table.optimize(cleanup_older_than=KEPT)

    def _keep_index(self) -> None:
        """From `INDEX_FROM` rows on a scan gets slow: an approximate index takes over.

        Partitions with full vectors: scores stay exact, and rows added later are still scanned.
        Product quantisation with default settings found 3 of the 10 nearest in a trial.
        """
        if len(self) >= INDEX_FROM and not self._table.list_indices():
            from lancedb.index import IvfFlat

            self._table.create_index("vector", config=IvfFlat(distance_type="cosine"))


def _lancedb() -> Any:
    # Rust's log would tell of tables being created; both must be set before the library loads.
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb

    return lancedb


def _schema(dim: int) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("modality", pa.string(), nullable=False),
            pa.field("number", pa.int32(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("texts", pa.list_(pa.string())),
            pa.field("path", pa.string()),
            pa.field("language", pa.string()),
            pa.field("metadata", pa.string()),
            pa.field("facts", pa.json_()),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


def _to_arrow(rows: Sequence[Row], dim: int) -> Any:
    import pyarrow as pa

    vectors = np.stack([row.vector.astype(np.float32) for row in rows])
    told = pa.array([json.dumps(facts(row.metadata)) for row in rows], pa.string())
    columns = {
        "key": [row.key for row in rows],
        "id": [row.id for row in rows],
        "modality": [row.modality for row in rows],
        "number": [row.number for row in rows],
        "text": ["\n".join(row.texts) if row.texts else None for row in rows],
        "texts": [list(row.texts) for row in rows],
        "path": [row.path for row in rows],
        "language": [row.language for row in rows],
        "metadata": [json.dumps(dict(row.metadata), ensure_ascii=False) for row in rows],
        "facts": pa.ExtensionArray.from_storage(pa.json_(), told),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim),
    }
    return pa.table(columns, schema=_schema(dim))


def _to_row(record: dict[str, Any]) -> Row:
    return Row(
        id=record["id"],
        vector=np.array(record["vector"], dtype=np.float32),
        modality=record["modality"],
        texts=tuple(record["texts"]),
        path=record["path"],
        language=record["language"],
        metadata=json.loads(record["metadata"]),
        number=record["number"],
    )


def _among(ids: Sequence[str]) -> str:
    return f"id IN ({', '.join(sql_string(name) for name in ids)})" if ids else "false"
