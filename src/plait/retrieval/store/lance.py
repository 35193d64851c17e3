"""Vectors on disk in LanceDB: versioned, embedded, no server, exact below 100,000 rows.

One table ``rows``. ``metadata`` holds the row's JSON as it was given; ``facts`` its scalar values as
text in Lance's JSON type, for filters (see `plait.retrieval.store.predicate`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from plait.core.errors import SearchIndexError, shown
from plait.core.modality import IMAGE, TEXT
from plait.retrieval.store.filters import Filter, check_filter
from plait.retrieval.store.predicate import facts, seen_by_filters, sql_string, to_sql
from plait.retrieval.store.store import Hit, Row, check_k, check_rows, check_vector

TABLE = "rows"
INDEX_FROM = 100_000  # rows; below, a scan is exact and fast enough
PROBES = 40  # partitions that a search looks into, once there is an index
KEPT = timedelta(minutes=10)  # how long replaced versions stay for readers that opened them
SEARCH_SECONDS = 60.0  # within which a search ends, with an error where it is not done
MOST_METADATA = 1 << 20  # characters of a row's metadata
DEEPEST_METADATA = 100  # lists and objects within one another
_SCANNED = 1000  # rows
_BRACKETS = re.compile(r"[\[\]{}]")
_COLUMNS = ["key", "id", "modality", "number", "texts", "path", "language", "metadata"]


class UnreadableIndex(SearchIndexError):
    """An index that is damaged, or that something else than plait wrote."""


class SearchTimeout(SearchIndexError):
    """A search that was not done in time."""


class LanceStore:
    """A LanceDB table in a folder.

    Args:
        folder: where the table is, or will be.
        dim: features of a vector.
        create: make a new table; False opens what is there.

    Raises:
        SearchIndexError: there is none, it cannot be read, or it holds other columns, or vectors of
            another dimension.
    """

    seconds = SEARCH_SECONDS

    def __init__(self, folder: Path, dim: int, *, create: bool = False) -> None:
        self._dim, self._folder = dim, folder
        database = _lancedb().connect(str(folder))
        if create:
            self._table = database.create_table(TABLE, schema=_schema(dim))
            return
        try:
            self._table = database.open_table(TABLE)
        except (ValueError, FileNotFoundError) as error:
            raise SearchIndexError(f"{folder} holds no table of vectors: index again") from error
        with _told(folder):
            _check_schema(self._table.schema, dim, folder)

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
        if where is not None:
            check_filter(where)
        with _told(self._folder):
            k = min(k, max(1, len(self)))  # LanceDB makes room for k
            query = self._table.search(vector.astype(np.float32)).distance_type("cosine").limit(k)
            query = query.nprobes(PROBES)
            if where is not None:
                query = query.where(to_sql(where), prefilter=True)
            chosen = query.select([*_COLUMNS, "vector", "_distance"])
            found = chosen.to_arrow(timeout=timedelta(seconds=self.seconds)).to_pylist()
            hits = [Hit(_to_row(record), 1.0 - float(record["_distance"])) for record in found]
            return sorted(hits, key=lambda hit: (-hit.score, hit.row.key))

    def rows(self, ids: Sequence[str] | None = None) -> list[Row]:
        """Rows by key; all of them, or those with these ids."""
        query = self._table.search()
        if ids is not None:
            query = query.where(_among(sorted(set(ids))))
        with _told(self._folder):
            found = query.select([*_COLUMNS, "vector"]).to_arrow()
            return sorted(_to_rows(found, self.dim), key=lambda row: row.key)

    def keys(self) -> list[str]:
        """Of all rows, in any order, without reading a vector."""
        with _told(self._folder):
            found: list[str] = self._table.search().select(["key"]).to_arrow()["key"].to_pylist()
            return found

    def scan(self) -> Iterator[Row]:
        """All rows in any order, a few in memory at a time."""
        query = self._table.search().select([*_COLUMNS, "vector"])
        with _told(self._folder):
            for batch in query.to_batches(batch_size=_SCANNED):
                yield from _to_rows(batch, self.dim)

    def paths(self) -> dict[str, str | None]:
        """The path of each id, without reading a vector."""
        with _told(self._folder):
            found = self._table.search().select(["id", "path"]).to_arrow()
            ids, paths = found["id"].to_pylist(), found["path"].to_pylist()
            return dict(zip(ids, paths, strict=True))

    def facts(self, most: int) -> list[dict[str, str | None]]:
        """What filters see of ``most`` rows, in the order of the table."""
        with _told(self._folder):
            found = self._table.search().select(_COLUMNS).limit(most).to_arrow().to_pylist()
            return [seen_by_filters(_to_row({**record, "vector": ()})) for record in found]

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


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What a library raises over files that it did not write, as one message."""
    try:
        yield
    except SearchIndexError:
        raise
    except TimeoutError as error:
        raise SearchTimeout(f"{folder}: the search took too long: give a simpler filter") from error
    except BaseException as error:
        # A panic of Rust is no Exception; whoever stops plait is not to be held up.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if "timeout" in str(error).lower()[:1000]:
            raise SearchTimeout(f"{folder}: the search took too long") from error
        reason = f"{type(error).__name__}: {shown(str(error))}"
        raise UnreadableIndex(f"{folder} cannot be read ({reason}): index again") from error


def _check_schema(found: Any, dim: int, folder: Path) -> None:
    """Refuses a table of other columns than `_schema` has: a stranger may have made it."""
    wanted = _schema(dim)
    for column in wanted:
        place = found.get_field_index(column.name)
        kind = None if place < 0 else found.field(place).type
        if kind is not None and column.name == "vector" and getattr(kind, "list_size", dim) != dim:
            raise SearchIndexError(
                f"{folder} holds vectors of {kind.list_size} features, not {dim}"
            )
        # Lance gives its JSON back as a type of its own, which depends on its version.
        if kind != column.type and (kind is None or column.name != "facts"):
            raise UnreadableIndex(
                f"{folder} holds a table without the column {column.name} of the type "
                f"{column.type}: index again"
            )


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


def _to_rows(found: Any, dim: int) -> list[Row]:
    """The rows of an Arrow table or batch."""
    vectors = np.zeros((0, dim), np.float32)
    if len(found):
        column = found["vector"]
        parts = column.chunks if hasattr(column, "chunks") else [column]
        vectors = np.concatenate([part.flatten().to_numpy() for part in parts]).reshape(-1, dim)
    records = found.select(_COLUMNS).to_pylist()
    return [
        _to_row({**record, "vector": vector})
        for record, vector in zip(records, vectors, strict=True)
    ]


def _to_row(record: dict[str, Any]) -> Row:
    metadata = record["metadata"]
    if len(metadata) > MOST_METADATA or _depth(metadata) > DEEPEST_METADATA:
        raise UnreadableIndex(
            f"the metadata of the row {shown(record['id'])} has more than {MOST_METADATA:,} "
            f"characters or is nested more than {DEEPEST_METADATA} deep: index again"
        )
    if record["modality"] not in (IMAGE, TEXT):
        raise UnreadableIndex(f"the row {shown(record['id'])} is of no modality: index again")
    return Row(
        id=record["id"],
        vector=np.array(record["vector"], dtype=np.float32),
        modality=record["modality"],
        texts=tuple(record["texts"]),
        path=record["path"],
        language=record["language"],
        metadata=dict(json.loads(metadata)),
        number=record["number"],
    )


def _depth(text: str) -> int:
    """How deep a JSON text is nested, at most: brackets inside of its strings count too."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _among(ids: Sequence[str]) -> str:
    return f"id IN ({', '.join(sql_string(name) for name in ids)})" if ids else "false"
