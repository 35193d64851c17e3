"""Embeddings, indexes, search and classification."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.api.sources import Roots, Source, aligned_model, checked_policy, load, open_split
from plait.core.errors import DataError, UserError
from plait.core.notebook import reported

if TYPE_CHECKING:
    from plait.data.base.dataset import PairDataset
    from plait.models.alignment.alignment import AlignmentModel
    from plait.models.store.kinds import Model
    from plait.retrieval.index.index import Index
    from plait.retrieval.index.rows import Hits


def embed(
    run: Source,
    data: Source,
    out: Source,
    *,
    split: str = "all",
    on_bad_row: str = "fail",
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
) -> dict[str, Any]:
    """Writes unit vectors of ``data`` to ``out`` (.npz or .parquet); refuses to overwrite."""
    from plait.engines.features import embed_dataset
    from plait.retrieval.store.vectors import check_target, write_vectors

    dataset = open_split(
        data, split, on_bad_row, root=root, allow_outside=allow_outside, encoding=encoding
    )
    check_target(Path(out))
    embeddings = embed_dataset(
        aligned_model(run, "embedding"), dataset, on_bad_row=checked_policy(on_bad_row)
    )
    return write_vectors(embeddings, Path(out))


@reported
def index(
    run: Source,
    data: Source | None,
    out: Source,
    *,
    add: bool = False,
    sync: bool = False,
    delete: Sequence[str] = (),
    split: str = "all",
    on_bad_row: str = "fail",
    root: Roots = None,
    allow_outside: bool = False,
    allow_empty: bool = False,
    encoding: str | None = None,
) -> dict[str, Any]:
    """Makes an index of the pictures in ``data``, adds to one, or deletes rows by id.

    With ``sync`` the index then holds the pictures of ``data`` and no others: the counts are
    ``added``, ``changed``, ``moved``, ``deleted``, ``unchanged`` (see `plait.retrieval.Index.sync`).
    Where none of its pictures is there any more, ``allow_empty`` says that this is meant.
    """
    from plait.retrieval import build_index, open_index

    out = Path(out)
    if data is None and not delete:
        raise UserError("nothing to do: give data to index, or --delete ID")
    if sync and (add or delete or data is None):
        raise UserError("--sync takes data, and neither --add nor --delete")
    if allow_empty and not sync:
        raise UserError("--allow-empty belongs to --sync")
    options: dict[str, Any] = {"root": root, "allow_outside": allow_outside, "encoding": encoding}
    if sync:
        assert data is not None
        return _synced(run, data, out, split, on_bad_row, allow_empty, options)
    deleted = _deleted(open_index(out), delete) if delete else 0
    counts = {"added": 0, "replaced": 0, "deleted": deleted, "skipped": 0}
    notes: list[dict[str, Any]] = []
    if data is not None:
        dataset = open_split(data, split, on_bad_row, every_picture=True, **options)
        notes = _notes(dataset)
        model = aligned_model(run, "an index")
        done = build_index(model, dataset, out, run=Path(run), add=add, on_bad_row=on_bad_row)
        counts |= {"added": done.rows - done.replaced, "replaced": done.replaced}
        counts["skipped"] = len(done.skipped) + len(dataset.skipped)
        _keep_towers(out, model, Path(run))
        open_index(out, kept=True)  # keeps a copy of its rows
    return {"out": str(out), "rows": len(open_index(out)), **counts, "notes": notes}


def _synced(
    run: Source,
    data: Source,
    out: Path,
    split: str,
    on_bad_row: str,
    allow_empty: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    from plait.data.base.dataset import PairDataset
    from plait.retrieval import sync_index

    try:
        dataset = open_split(data, split, on_bad_row, every_picture=True, **options)
    except DataError as error:
        if not error.nothing or not (out / "manifest.json").is_file():
            raise
        dataset = PairDataset([], "images", Path(data))
    loaded: list[AlignmentModel] = []

    def model() -> AlignmentModel:
        loaded.append(aligned_model(run, "an index"))
        return loaded[0]

    done = sync_index(
        None,
        dataset,
        out,
        run=Path(run),
        load=model,
        on_bad_row=on_bad_row,
        allow_empty=allow_empty,
    )
    if loaded:
        _keep_towers(out, loaded[0], Path(run))
    return {
        "out": str(out),
        "added": done.added,
        "changed": done.changed,
        "moved": done.moved,
        "deleted": done.deleted,
        "unchanged": done.unchanged,
        "skipped": len(done.skipped) + len(dataset.skipped),
        "rows": done.rows,
        "notes": _notes(dataset),
    }


def _notes(dataset: PairDataset) -> list[dict[str, Any]]:
    from plait.data.base.notes import Note, as_json

    return [as_json(note) for note in dataset.notes if isinstance(note, Note)]


def _deleted(index: Index, names: Sequence[str]) -> int:
    """Deletes rows by their ids, or by the paths of their pictures; how many ids there were."""
    known = index.store.paths()
    by_path = {path: id for id, path in known.items() if path is not None}
    return index.delete(
        [name if name in known else by_path.get(os.path.realpath(name), name) for name in names]
    )


def _keep_towers(index: Path, model: AlignmentModel, run: Path) -> None:
    """While the model is loaded, so that neither the first search nor a sync must load it again."""
    from plait.retrieval.index.kept import keep_tower, tower_place
    from plait.retrieval.index.manifest import read_manifest

    manifest = read_manifest(index)
    for modality in model.modalities:
        keep_tower(model, modality, tower_place(manifest, run, modality))


def search(
    index: Source,
    query: str | None = None,
    *,
    image: Source | None = None,
    k: int = 10,
    where: str | None = None,
    run: Source | None = None,
    sheet: Source | None = None,
    rerank: Source | None = None,
    roots: Sequence[Source] = (),
    allow_outside: bool = False,
) -> Hits:
    """The ``k`` nearest rows of an index to words or to a picture: ``{id, score, path, text}``.

    Pictures that are no longer on the disk are passed over, and counted in ``gone`` of the result.

    Where the model cannot read the words, each row has a ``note`` that says so: what was found may
    mean nothing (see `plait.modalities.text.scripts`).

    With ``rerank``, the run of a fusion model trained to match, the nearest rows (at least 50) are
    ordered by its log odds (``match``) plus the logit scale times the cosine. Pictures outside the
    index's folders are drawn and reranked only with ``roots``, or ``allow_outside`` (see
    `plait.retrieval.open_index`).
    """
    from plait.retrieval import open_index
    from plait.retrieval.index.rows import Hits

    if (query is None) == (image is None):
        raise UserError("give words to look for, or --image FILE, one of the two")
    opened = open_index(
        index,
        model=None if run is None else aligned_model(run, "search"),
        roots=[Path(root) for root in roots],
        allow_outside=allow_outside,
        kept=True,
    )
    wanted = query if query is not None else Path(str(image))
    if rerank is None:
        hits = opened.search(wanted, k=k, where=where)
    else:
        hits = _reranked(opened, wanted, k, where, rerank)
    note = opened.note(wanted)
    if sheet is not None:
        from plait.retrieval import contact_sheet

        contact_sheet([(wanted, hits)], Path(sheet), note=note)
    return hits if note is None else Hits(({**hit, "note": note} for hit in hits), gone=hits.gone)


def _reranked(index: Index, query: str | Path, k: int, where: str | None, run: Source) -> Hits:
    from plait.models.store.kinds import fused
    from plait.retrieval.index.rerank import CANDIDATES, rerank
    from plait.retrieval.index.rows import Hits

    hits = index.search(query, k=max(k, CANDIDATES), where=where)
    scale = float(index.model.scale.detach())
    ordered = rerank(fused(load(run), "reranking"), query, hits, scale=scale)[:k]
    return Hits(ordered, gone=hits.gone)


def classify(
    run: Source | Model,
    images: Sequence[Source],
    labels: Sequence[str],
    templates: Sequence[str] = ("{}",),
) -> list[dict[str, Any]]:
    """For each image the labels with probabilities, best first."""
    if len(labels) < 2:
        raise UserError("give at least two labels with a comma between them")
    for template in templates:
        if "{}" not in template:
            raise UserError(f"the template {template!r} has no {{}} for the label")
    probabilities = aligned_model(run, "classifying by labels").classify(
        [Path(p) for p in images], labels, templates
    )
    found = []
    for path, row in zip(images, probabilities, strict=True):
        order = row.argsort()[::-1]
        ranked = [{"label": labels[i], "probability": float(row[i])} for i in order]
        found.append({"path": str(path), "labels": ranked})
    return found
