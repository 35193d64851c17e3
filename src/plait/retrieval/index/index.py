"""An index on disk: build it from pairs or pictures, search it by words, a picture or a vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from plait.core.errors import DataError, SearchIndexError, UserError, shown
from plait.core.files import RealPaths
from plait.core.lock import FolderLock
from plait.core.media import MediaRef
from plait.core.modality import IMAGE, TEXT
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import BadRow
from plait.modalities.text.scripts import query_note
from plait.modalities.text.tokenize import TextPreprocess
from plait.retrieval.index.gone import present
from plait.retrieval.index.identity import with_row_ids
from plait.retrieval.index.kept import (
    KeptTower,
    keep_rows,
    keep_tower,
    kept_rows,
    kept_tower,
    rows_place,
    tower_place,
)
from plait.retrieval.index.manifest import (
    Manifest,
    check_same_model,
    model_fingerprint,
    read_manifest,
    run_folder,
    united,
)
from plait.retrieval.index.roots import below_roots, roots_of
from plait.retrieval.index.rows import Hits, remove_thumbnails, result
from plait.retrieval.index.state import Journal, states_of
from plait.retrieval.index.syncing import Synced, sync
from plait.retrieval.index.writing import BLOCK, Writer, record
from plait.retrieval.store.columns import MOST_ROWS as MOST_LOOKED_AT
from plait.retrieval.store.columns import Column, columns_of_facts
from plait.retrieval.store.corrected import extended_query
from plait.retrieval.store.filters import All, Compare, Filter, Where, parse_where
from plait.retrieval.store.lance import LanceStore
from plait.retrieval.store.memory import MemoryStore
from plait.retrieval.store.store import Row, VectorStore, check_k, check_vector, columns_of

if TYPE_CHECKING:  # searching by vectors needs no torch
    from plait.models.alignment.alignment import AlignmentModel

Query = str | Path | np.ndarray | Image.Image | MediaRef


@dataclass(frozen=True)
class Added:
    """What `build_index` and `Index.add` did.

    Attributes:
        rows: that went in.
        replaced: how many of their ids the index had before.
        skipped: samples that did not, with the reason.
    """

    rows: int
    skipped: Sequence[BadRow] = field(default=())
    replaced: int = 0


class Index:
    """Rows on disk, the model that made them, and search. Made by `build_index`, `open_index`.

    Args:
        folder: of the index.
        manifest: what it was made with.
        store: the rows; None opens those of the folder when they are first asked for.
        model: to embed queries; None loads it from the run folder when the first query needs it.
        load: loads it otherwise.
        run: the folder that the model is in; None: that of the manifest.
        roots: folders whose pictures may be shown, besides the index's own and those that its
            manifest states; None: all pictures may.
        kept: embed queries by a tower that is kept in plait's cache, and keep it there (see
            `plait.retrieval.index.kept`).
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        store: VectorStore | None = None,
        model: AlignmentModel | None = None,
        *,
        load: Callable[[], AlignmentModel] | None = None,
        run: Path | None = None,
        roots: Sequence[str | Path] | None = (),
        kept: bool = False,
    ) -> None:
        self.folder, self.manifest, self._store, self._run = folder, manifest, store, run
        self._kept = kept
        self._tower: KeptTower | None = None  # that embedded the last query
        self._model, self._load = model, load
        self._stated = None if roots is None else tuple(map(str, roots))

    def __len__(self) -> int:
        return len(self.store)

    def __repr__(self) -> str:
        return f"Index({self.folder}, {len(self)} rows, {self.manifest.dim} features)"

    @property
    def store(self) -> VectorStore:
        """The rows."""
        if self._store is None:
            self._store = LanceStore(self.folder, self.manifest.stored_dim)
        return self._store

    @property
    def run(self) -> Path | None:
        """Where the model is; None where that is not known."""
        try:
            return self._run or self.run_folder()
        except SearchIndexError:
            return None

    def run_folder(self) -> Path:
        """Where the model that made the index is. Raises SearchIndexError when it is gone."""
        return run_folder(self.manifest, self.folder)

    def check_model(self, model: AlignmentModel) -> None:
        """Raises SearchIndexError, with both fingerprints, for another model than the index's."""
        check_same_model(self.manifest, model_fingerprint(model), self.folder)

    @property
    def model(self) -> AlignmentModel:
        """The model that made the index."""
        if self._model is None:
            loaded = self._load() if self._load else self._from_run()
            self.check_model(loaded)
            self._model = loaded
        return self._model

    def _from_run(self) -> AlignmentModel:
        from plait.models.store.kinds import aligned
        from plait.models.store.published import is_published, load_published
        from plait.models.store.storage import load_model

        place = self.run_folder()
        return (
            load_published(place) if is_published(place) else aligned(load_model(place), "an index")
        )

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        where: Where = None,
        find: str | None = None,
        modality: str | None = None,
    ) -> Hits:
        """The ``k`` nearest rows, best first.

        Args:
            query: words; a picture (path, PIL image, uint8 array (H, W, 3), media reference); or a
                unit vector (D,).
            k: how many; fewer come back when fewer pass.
            where: a filter (see `plait.retrieval.store.filters`).
            find: ``image``, ``text`` or ``any``; None: pictures where there are any, else texts.
            modality: of what a vector was made from, ``image`` or ``text``.

        In an index of a model with a correction for hubs, the score is the cosine less the
        correction for rows of another modality than the query's. A vector without ``modality`` is
        taken for one of the modality that ``find`` is not; with ``any`` nothing is corrected.

        Pictures that are no longer on the disk are passed over; ``gone`` of the result counts them.

        Returns:
            ``[{rank, id, key, score, path, outside, text, texts, modality, language, metadata}]``.

        Raises:
            UserError: an empty query, a picture that cannot be read, an unfit filter or vector.
        """
        find = self._find(find)
        part = self._filter(where, find)
        vector, corrects = self._vector(query, find, modality)
        factor = 1.0
        if self.manifest.corrected:
            check_vector(vector, self.manifest.dim, "the query")
            vector, factor = extended_query(vector, corrects)
        check_k(k)
        hits, gone = present(lambda most: self.store.search(vector, most, part), k, self._shown())
        found = (
            self._result(hit.row, hit.score * factor, rank)
            for rank, hit in enumerate(hits, start=1)
        )
        return Hits(found, gone=gone)

    def similar(
        self, key: str, *, k: int = 10, where: Where = None, find: str | None = None
    ) -> Hits:
        """The ``k`` rows nearest to one of the index, without the others of its sample.

        Args:
            key: of the row, as hits tell it.
            k: how many.
            where: a filter.
            find: as for `search`.

        Raises:
            UserError: there is no such row, or an unfit filter.
        """
        row = self.row(key)
        vector = row.vector[: self.manifest.dim].astype(np.float64)
        unit = vector / np.linalg.norm(vector)  # a corrected row's part is shorter
        own = len(self.store.rows([row.id]))
        hits = self.search(unit, k=k + own, where=where, find=find, modality=row.modality)
        others = [hit for hit in hits if hit["id"] != row.id][:k]
        ranked = ({**hit, "rank": rank} for rank, hit in enumerate(others, start=1))
        return Hits(ranked, gone=hits.gone)

    def row(self, key: str) -> Row:
        """The row of that key. Raises SearchIndexError when there is none."""
        _, _, name = key.partition("/")[2].partition("/")
        parse_where({"id": name}, ())  # what no filter may hold, no store is asked for
        found = [row for row in self.store.rows([name]) if row.key == key]
        if not found:
            raise SearchIndexError(f"the index has no row {shown(key)}")
        return found[0]

    def show(self, key: str) -> dict[str, Any]:
        """The row of that key as a hit of `search`. Raises as `row`."""
        return self._result(self.row(key), 1.0, 1)

    def columns(self) -> list[Column]:
        """What filters can name, with the values worth trying, by the first 50,000 rows."""
        return columns_of_facts(self.store.facts(MOST_LOOKED_AT), self.manifest.columns)

    def place_of(self, path: str) -> Path | None:
        """A picture's path below the index's folder or a root; None where it is below neither."""
        return below_roots(path, (self.folder, *(self._stated or ()), *self.manifest.own_roots))

    def _result(self, row: Row, score: float, rank: int) -> dict[str, Any]:
        return result(row, score, rank, self.folder, self._roots())

    def note(self, query: Query) -> str | None:
        """Why what words find may mean nothing (`plait.modalities.text.scripts`); None where they are read."""
        if not isinstance(query, str):
            return None
        kept = None if self._tower is None else self._tower.text_preprocess
        preprocess = kept or self.model.tower(TEXT).encoder.preprocess
        assert isinstance(preprocess, TextPreprocess)
        return query_note(preprocess, query)

    def _vector(
        self, query: Query, find: str, modality: str | None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """The query's vector, and the modalities of rows that are of another than its own."""
        if isinstance(query, np.ndarray) and query.ndim != 3:
            if modality is not None:
                return query, (TEXT if modality == IMAGE else IMAGE,)
            return query, () if find == "any" else (find,)
        if isinstance(query, str):
            if not query.strip():
                raise UserError("the query is empty")
            return self._embedded(query, TEXT), (IMAGE,)
        return self._embedded(query, IMAGE), (TEXT,)

    def _embedded(self, query: Query, modality: str) -> np.ndarray:
        if not self._kept or self._model is not None:
            return self._by_model(query, modality)
        place = tower_place(self.manifest, self.run_folder(), modality)
        self._tower = kept_tower(modality, place)
        if self._tower is not None:
            return self._tower.embed(query)
        vector = self._by_model(query, modality)
        keep_tower(self.model, modality, place)
        return vector

    def _by_model(self, query: Query, modality: str) -> np.ndarray:
        if modality == TEXT:
            return self.model.embed(texts=[str(query)])[TEXT][0]
        return self.model.embed(images=[query])[IMAGE][0]

    def _find(self, find: str | None) -> str:
        if find not in (None, IMAGE, TEXT, "any"):
            raise SearchIndexError(f"find is 'image', 'text' or 'any', not {shown(find)}")
        if find is None:
            return IMAGE if IMAGE in self.manifest.modalities else "any"
        return find

    def _filter(self, where: Where, find: str) -> Filter | None:
        part = parse_where(where, self.manifest.columns)
        if find == "any" or self.manifest.modalities == (find,):
            return part
        kind = Compare("modality", "=", find)
        return kind if part is None else All((kind, part))

    def add(
        self,
        model: AlignmentModel,
        dataset: PairDataset,
        *,
        texts: bool = False,
        **embedding: Any,
    ) -> Added:
        """Adds the samples of a data set; rows that the index has by their ids are replaced.

        Args:
            model: the model that made the index.
            dataset: pictures, with texts or without.
            texts: also a row for every text, so that words can be found too.
            embedding: as for `plait.engines.features.embed_dataset` (``on_bad_row``, engine, ...).

        Raises:
            SearchIndexError: another model.
            DataError: no pictures (and ``texts`` is off), one that cannot be used, or two samples
                of one id.
        """
        self.check_model(model)
        self._model = model
        with self.changing():
            return self.add_locked(dataset, texts=texts, **embedding)

    def add_locked(self, dataset: PairDataset, *, texts: bool = False, **embedding: Any) -> Added:
        """`add`, by the model of this index, for one who holds the lock of the folder."""
        journal, real, known = Journal(self.folder), RealPaths(), self.store.paths()
        whole = journal.in_step() or not known
        dataset = with_row_ids(dataset, known, real)
        writer = Writer(self, len(dataset), texts=texts, real=real, embedding=embedding)
        rows, replaced = 0, 0
        skipped: list[BadRow] = []
        for start in range(0, len(dataset), BLOCK):
            part = dataset[start : start + BLOCK]
            states = states_of(part, part.splits, real)  # before they are embedded: none is later
            for block in writer.write(part, range(len(part))):
                whole = record(journal, block, states, whole=whole, texts=texts)
                rows += block.rows
                replaced += len(known.keys() & block.ids)
                skipped += block.skipped
        if not rows:
            reason = f" ({skipped[0].where}: {skipped[0].problem})" if skipped else ""
            raise DataError(f"there is nothing to index{reason}")
        return Added(rows, tuple(skipped), replaced)

    def sync(
        self,
        model: AlignmentModel,
        dataset: PairDataset,
        *,
        allow_empty: bool = False,
        **embedding: Any,
    ) -> Synced:
        """Makes the index hold the pictures of a data set and no others.

        What was not touched (path, size, time, else content) is not embedded again; a picture that
        moved keeps its vector. After an interruption it goes on where it was.

        Args:
            model: the model that made the index.
            dataset: pictures, with texts or without.
            allow_empty: all pictures of the index may be gone (see `check_emptied`).
            embedding: as for `add`.

        Raises:
            SearchIndexError: another model, or all pictures of the index are gone.
            DataError: a picture that cannot be used, or two samples of one id.
        """
        self.check_model(model)
        self._model = model
        with self.changing():
            return sync(self, dataset, allow_empty=allow_empty, **embedding)

    def put(self, rows: Sequence[Row], dataset: PairDataset) -> None:
        """Puts in rows of a data set; those that the index has by their ids are replaced."""
        if rows:
            self._expect(rows, roots_of(dataset.root, (row.path for row in rows)))
            self.store.upsert(rows)

    def _shown(self) -> tuple[str | Path, ...] | None:
        roots = self._roots()
        return None if roots is None else (self.folder, *roots)

    def _roots(self) -> tuple[str, ...] | None:
        return None if self._stated is None else (*self._stated, *self.manifest.own_roots)

    def _expect(self, rows: Sequence[Row], roots: Sequence[str]) -> None:
        """Notes new columns and roots before their rows go in: a filter may then name them."""
        columns = united(self.manifest.columns, columns_of(rows))
        modalities = united(self.manifest.modalities, [row.modality for row in rows])
        expected = replace(self.manifest, columns=columns, modalities=modalities).with_roots(roots)
        if expected != self.manifest:
            self.manifest = expected
            self.manifest.save(self.folder)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Holds the lock of the folder, and begins with what other processes have made of the index.

        Raises:
            SearchIndexError: an index in memory, or one that another model made meanwhile.
            UserError: another process is changing it.
        """
        if isinstance(self._store, MemoryStore):
            raise SearchIndexError(
                f"{self.folder} is open in memory, to be searched: open it without in_memory to change it"
            )
        with FolderLock(self.folder, "is changing"):
            manifest = read_manifest(self.folder)
            check_same_model(manifest, self.manifest.model, self.folder)
            self.manifest = manifest
            if isinstance(self._store, LanceStore):
                self._store = None  # opened anew
            yield

    def delete(self, ids: Sequence[str]) -> int:
        """Takes out all rows with these ids; returns how many of the ids there were.

        Raises:
            SearchIndexError, UserError: see `changing`.
        """
        with self.changing():
            return self.delete_locked(ids)

    def delete_locked(self, ids: Sequence[str]) -> int:
        """`delete`, for one who holds the lock of the folder."""
        gone = self.store.rows(ids)
        count = self.store.delete(ids)
        remove_thumbnails(gone, self.folder)
        return count

    def optimize(self) -> None:
        """Gives back the space of what was replaced and deleted."""
        self.store.optimize()


def open_index(
    path: str | Path,
    *,
    model: AlignmentModel | None = None,
    in_memory: bool = False,
    roots: Sequence[str | Path] = (),
    allow_outside: bool = False,
    kept: bool = False,
) -> Index:
    """An index that `build_index` made.

    Args:
        path: its folder.
        model: the model that made it, if it is loaded already.
        in_memory: read all rows now and search them in memory, exactly; it can't be changed.
        roots: folders whose pictures may be shown, besides the index's own and those that this user
            made it from.
        allow_outside: all pictures may be shown, wherever they lie.
        kept: only to search, soon after a start: by what is kept in plait's cache, where it is of
            the present state, or is kept now (see `plait.retrieval.index.kept`).

    Raises:
        SearchIndexError: no index, a damaged one, or one of another model.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    store = _kept_store(folder, manifest) if kept else LanceStore(folder, manifest.stored_dim)
    if in_memory:
        memory = MemoryStore(manifest.stored_dim)
        memory.upsert(store.rows())
        store = memory
    stated = None if allow_outside else [_root(root) for root in roots]
    index = Index(folder, manifest, store, model, roots=stated, kept=kept)
    if model is not None:
        index.check_model(model)
    return index


def _kept_store(folder: Path, manifest: Manifest) -> VectorStore:
    place = rows_place(folder)
    copied = kept_rows(place)
    if copied is not None:
        return copied
    store = LanceStore(folder, manifest.stored_dim)
    keep_rows(store, place)
    return store


def _root(root: str | Path) -> str:
    if not Path(root).is_dir():
        raise SearchIndexError(f"{root} is no folder: --root names a folder of pictures")
    return str(Path(root).resolve())
