"""From samples to rows of an index, a block at a time: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from plait.core.files import RealPaths
from plait.core.modality import IMAGE
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import BadRow, Sample
from plait.retrieval.index.kept import KeptPictures, kept_pictures, tower_place
from plait.retrieval.index.rows import image_row, text_rows
from plait.retrieval.index.state import Journal, States
from plait.retrieval.store.corrected import corrected_rows
from plait.retrieval.store.store import Row

if TYPE_CHECKING:
    from plait.retrieval.index.index import Index

BLOCK = 2000  # samples that are embedded, and whose rows are written, at once
FEW = 256  # pictures for which no model is loaded where its image tower is kept by itself

NO_PICTURE = "no-picture"


@dataclass(frozen=True)
class Block:
    """What was written of some samples.

    Attributes:
        ids: of the samples that have rows now.
        rows: how many.
        skipped: the samples that have none, with the reason.
    """

    ids: set[str] = field(default_factory=set)
    rows: int = 0
    skipped: Sequence[BadRow] = ()


class Writer:
    """Embeds samples and puts their rows into an index.

    Args:
        index: whose model embeds.
        total: samples that will be written in all.
        texts: also a row for every text.
        real: of paths.
        embedding: as for `plait.engines.features.embed_dataset`.
    """

    def __init__(
        self,
        index: Index,
        total: int,
        *,
        texts: bool,
        real: RealPaths,
        embedding: dict[str, Any],
    ) -> None:
        self.index, self.total, self.texts, self.real = index, total, texts, real
        self._begun = 0
        self._embedding = embedding
        self._runners: dict[str, Any] = {}  # their caches are read once

    def write(self, dataset: PairDataset, places: Sequence[int]) -> Iterator[Block]:
        """Writes these samples, and tells of each block when it is in the index."""
        kept = self._kept() if 0 < self.total <= FEW else None
        for start in range(0, len(places), BLOCK):
            part = dataset.select(places[start : start + BLOCK])
            if kept is not None:
                rows, skipped = self._by_kept(part, kept)
            else:
                rows, skipped = self._by_model(part, self._title(len(part)))
            self._begun += len(part)
            if self.index.manifest.corrected:
                hubs = self.index.model.hubs
                assert hubs is not None
                rows = corrected_rows(rows, hubs)
            self.index.put(rows, part)
            yield Block({row.id for row in rows}, len(rows), skipped)

    def _title(self, count: int) -> str:
        if self.total <= BLOCK:
            return "Encoding pictures"
        return f"Pictures {self._begun + 1:,} to {self._begun + count:,} of {self.total:,}"

    def _kept(self) -> KeptPictures | None:
        """The image tower by itself, where it makes the same rows as the model."""
        manifest = self.index.manifest
        if self.texts or manifest.corrected or self._embedding.keys() - {"on_bad_row"}:
            return None
        run = self.index.run
        return None if run is None else kept_pictures(tower_place(manifest, run, IMAGE))

    def _by_kept(self, part: PairDataset, kept: KeptPictures) -> tuple[list[Row], list[BadRow]]:
        samples = [sample for sample in part if sample.image is not None]
        splits = dict(zip(part.ids, part.splits, strict=True))
        found, errors = kept.vectors([sample.image for sample in samples if sample.image])
        if errors and self._embedding.get("on_bad_row", "fail") == "fail":
            raise errors[min(errors)]
        rows = [
            image_row(sample, splits[sample.id], found[place], self.index.folder, self.real)
            for place, sample in enumerate(samples)
            if place not in errors
        ]
        bad = [
            BadRow(samples[place].where, None, str(error), "unusable-picture")
            for place, error in sorted(errors.items())
        ]
        return rows, [*bad, *map(_no_picture, (one for one in part if one.image is None))]

    def _by_model(self, part: PairDataset, title: str) -> tuple[list[Row], list[BadRow]]:
        from plait.engines.features import embed_dataset

        by_id = {sample.id: sample for sample in part}
        splits = dict(zip(part.ids, part.splits, strict=True))
        found = embed_dataset(
            self.index.model,
            part if self.texts else _without_texts(part),
            title=title,
            runners=self._runners,
            **self._embedding,
        )
        skipped = list(found.skipped)
        starts = np.searchsorted(found.text_owner, np.arange(len(found.ids) + 1))
        rows: list[Row] = []
        for place, name in enumerate(found.ids):
            sample, split, path = by_id[name], splits[name], None
            if sample.image is not None:
                vector = found.image[place]
                rows.append(image_row(sample, split, vector, self.index.folder, self.real))
                path = rows[-1].path
            elif not self.texts:
                skipped.append(_no_picture(sample))
            if self.texts:
                vectors = list(found.text[starts[place] : starts[place + 1]])
                rows.extend(text_rows(sample, split, vectors, path))
        return rows, skipped


def take_over(index: Index, old: dict[int, str], dataset: PairDataset, real: RealPaths) -> None:
    """Rows for the samples at these places, with the vectors of the rows of these ids."""
    by_id = {id: (dataset[place], dataset.splits[place]) for place, id in old.items()}
    ids = list(by_id)
    for start in range(0, len(ids), BLOCK):
        rows = []
        for row in index.store.rows(ids[start : start + BLOCK]):
            sample, split = by_id[row.id]
            new = image_row(sample, split, row.vector, index.folder, real)
            own = row.modality == IMAGE
            rows.append(new if own else replace(row, id=new.id, path=new.path))
        index.put(rows, dataset)


def record(journal: Journal, block: Block, states: States, *, whole: bool, texts: bool) -> bool:
    """Notes in the journal what went in; whether it still describes all of the table."""
    put = {id: states[id] for id in block.ids if id in states}
    whole = whole and not texts and len(put) == len(block.ids)
    journal.write(put, whole=whole)
    return whole


def _no_picture(sample: Sample) -> BadRow:
    problem = "has no picture; texts alone are indexed with texts=True (--texts)"
    return BadRow(sample.where, None, problem, NO_PICTURE)


def _without_texts(dataset: PairDataset) -> PairDataset:
    """The same samples, so that no time goes into texts that nobody will look for."""
    bare = [replace(sample, texts=(), languages=()) for sample in dataset]
    return PairDataset(bare, dataset.format, dataset.root, assigned=dataset.splits)
