"""Making an index in a folder, or making one there be its data: what the command line does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.core.errors import DataError, SearchIndexError
from plait.core.files import unfinished_folder
from plait.core.lock import NAME as LOCK
from plait.core.modality import TEXT
from plait.data.base.dataset import PairDataset
from plait.retrieval.index.index import Added, Index, open_index
from plait.retrieval.index.manifest import NAME, new_manifest, read_manifest
from plait.retrieval.index.syncing import Synced, check_model, sync
from plait.retrieval.store.lance import LanceStore

if TYPE_CHECKING:
    from plait.models.alignment.alignment import AlignmentModel


def build_index(
    model: AlignmentModel,
    dataset: PairDataset,
    out: str | Path,
    *,
    run: str | Path | None = None,
    add: bool = False,
    overwrite: bool = False,
    texts: bool = False,
    **embedding: Any,
) -> Added:
    """Makes an index of a data set's pictures in ``out``, or adds to the one there.

    A new index appears in one step when it is complete; a failure leaves nothing behind. What a
    killed process left, the next one for the same ``out`` goes on with.

    Args:
        model: what embeds pictures and, later, queries.
        dataset: pictures, with texts or without.
        out: the folder of the index.
        run: the folder the model was loaded from, which a search loads again.
        add: add to an index that is there; rows that it has by their ids are replaced.
        overwrite: an index that is there gives way.
        texts: also a row for every text, so that words can be found too (``find="text"``).
        embedding: as for `plait.engines.features.embed_dataset` (``on_bad_row``, engine, ...).

    Raises:
        SearchIndexError: ``out`` holds something already, or (with ``add``) another model's index.
        DataError: nothing to index, or a picture that cannot be used.
        UserError: another process is making or changing it.
    """
    out = Path(out)
    if add:
        return open_index(out).add(model, dataset, texts=texts, **embedding)
    _check_free(out, overwrite)
    with unfinished_folder(out) as folder:
        manifest = new_manifest(model, out, None if run is None else Path(run))
        bare = texts and any(one.image is None for one in dataset)  # a sync adds no texts alone
        index = None if bare else _unfinished(folder, model, texts)
        if index is not None:
            index.manifest = replace(
                index.manifest, run=manifest.run, run_relative=manifest.run_relative
            )
            index.manifest.save(folder)
            done = sync(index, dataset, allow_empty=True, **embedding)
            if not len(index):
                raise DataError("there is nothing to index")
            return Added(len(index), done.skipped)
        for path in folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        store = LanceStore(folder, manifest.stored_dim, create=True)
        return Index(folder, manifest, store, model).add_locked(dataset, texts=texts, **embedding)


def _unfinished(folder: Path, model: AlignmentModel, texts: bool) -> Index | None:
    """What a killed process left of an index of this model; None where there is nothing of use."""
    if not (folder / NAME).is_file():
        return None
    try:
        index = open_index(folder, model=model)
    except SearchIndexError:
        return None
    return index if (TEXT in index.manifest.modalities) == texts else None


def sync_index(
    model: AlignmentModel | None,
    dataset: PairDataset,
    out: str | Path,
    *,
    run: str | Path | None = None,
    load: Callable[[], AlignmentModel] | None = None,
    allow_empty: bool = False,
    **embedding: Any,
) -> Synced:
    """`Index.sync` of the index in ``out``, which is made where there is none.

    Takes the arguments of `build_index` and `Index.sync`, and raises what they raise.

    Args:
        model: what made the index, or is to make it.
        dataset: pictures, with texts or without.
        out: the folder of the index.
        run: the folder of the model.
        load: loads the model where ``model`` is None. That is not done where nothing must be embedded, or
            few pictures, and what is kept of the index's model in the cache is of this run.
        allow_empty: all pictures of the index may be gone.
        embedding: as for `plait.engines.features.embed_dataset`.
    """
    out = Path(out)
    place = None if run is None else Path(run)
    if (out / NAME).is_file():
        index = Index(out, read_manifest(out), None, model, load=load, run=place)
        check_model(index)
        with index.changing():
            return sync(index, dataset, allow_empty=allow_empty, **embedding)
    if model is None:
        assert load is not None, "a model, or what loads it"
        model = load()
    done = build_index(model, dataset, out, run=run, **embedding)
    return Synced(done.rows, 0, 0, 0, 0, done.rows, done.skipped)


def _check_free(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not (out / NAME).is_file():
        raise SearchIndexError(f"{out} exists and is no index: name another folder (--out)")
    read_manifest(out)
    if not overwrite:
        raise SearchIndexError(
            f"{out} holds an index already: add to it (--add), or name another folder (--out)"
        )
