"""Making an index hold the pictures of a source and no others, by what its journal knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from plait.core.files import RealPaths
from plait.core.modality import IMAGE, TEXT
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import BadRow
from plait.retrieval.index.gone import check_emptied
from plait.retrieval.index.identity import Known, with_row_ids
from plait.retrieval.index.kept import tower_place
from plait.retrieval.index.state import Difference, Journal, States, difference
from plait.retrieval.index.writing import BLOCK, NO_PICTURE, Writer, record, take_over

if TYPE_CHECKING:
    from plait.retrieval.index.index import Index


@dataclass(frozen=True)
class Synced:
    """What `sync` did.

    Attributes:
        added, changed, moved, deleted, unchanged: pictures.
        rows: of the index now.
        skipped: samples that are not in the index, with the reason.
    """

    added: int
    changed: int
    moved: int
    deleted: int
    unchanged: int
    rows: int
    skipped: Sequence[BadRow] = field(default=())


def sync(
    index: Index, dataset: PairDataset, *, allow_empty: bool = False, **embedding: Any
) -> Synced:
    """See `plait.retrieval.Index.sync`. The caller holds the lock of the folder."""
    journal, real = Journal(index.folder), RealPaths()
    states, in_step = journal.read()
    texts = TEXT in index.manifest.modalities
    known: Known
    if in_step and not texts:
        known = {id: one.path for id, one in states.items()}
    else:
        known = index.store.paths()
    dataset = with_row_ids(dataset, known, real)
    found = difference(dataset.samples, dataset.splits, known, states, real)
    if not allow_empty:
        readable = known.keys() & found.states.keys()
        kept = len(readable) + len(found.moved)
        check_emptied(len(known), kept, len(found.states), dataset.root)
    if texts:
        worded = {one.id for one in dataset if one.image is None and known.get(one.id, "") is None}
        found.gone = [id for id in found.gone if id not in worded]  # texts that never had a picture
        _embed_texts_anew(found, states, dataset)
    return _Run(index, journal, real, dataset, found, states, known, in_step, texts).done(embedding)


def check_model(index: Index) -> None:
    """Refuses another model; what is kept of the index's model in the cache proves that it is the same."""
    run, manifest = index.run, index.manifest
    if run is None or not any(tower_place(manifest, run, name).is_dir() for name in (IMAGE, TEXT)):
        index.check_model(index.model)


def _embed_texts_anew(found: Difference, states: States, dataset: PairDataset) -> None:
    """Where texts have rows too, those of samples whose texts are others are made anew."""
    found.changed += found.retold
    found.retold = []
    for place in found.relocated:
        before, now = states[dataset[place].id], found.states[dataset[place].id]
        if before.told != now.told:
            found.changed.append(place)
    for place, id in list(found.moved.items()):
        if states[id].told != found.states[dataset[place].id].told:
            del found.moved[place]
            found.added.append(place)
    again = set(found.changed)
    found.relocated = [place for place in found.relocated if place not in again]


class _Run:
    """One sync, once it is known what is to be done."""

    def __init__(
        self,
        index: Index,
        journal: Journal,
        real: RealPaths,
        dataset: PairDataset,
        found: Difference,
        states: States,
        known: Known,
        in_step: bool,
        texts: bool,
    ) -> None:
        self.index, self.journal, self.real = index, journal, real
        self.dataset, self.found, self.known = dataset, found, known
        self.states, self.in_step, self.texts = states, in_step, texts

    def done(self, embedding: dict[str, Any]) -> Synced:
        found, samples = self.found, self.dataset.samples
        embedded = sorted({*found.added, *found.changed})
        self._keep({samples[place].id for place in embedded})
        count = len(embedded)
        writer = Writer(self.index, count, texts=self.texts, real=self.real, embedding=embedding)
        skipped = [
            BadRow(one.where, None, "has no picture", NO_PICTURE)
            for one in samples if one.image is None and not (self.texts and one.id in self.known)
        ]  # fmt: skip
        written: set[str] = set()
        for block in writer.write(self.dataset, embedded):
            self.in_step = record(
                self.journal, block, found.states, whole=self.in_step, texts=self.texts
            )
            written |= block.ids
            skipped += block.skipped
        self.states |= {id: found.states[id] for id in written if id in found.states}
        broken = {samples[place].id for place in embedded} - written
        gone = [*found.gone, *(broken & self.known.keys())]
        table = (self.known.keys() | written | {samples[i].id for i in found.moved}) - set(gone)
        self._drop(gone, table)
        moved = set(found.moved.values())
        return Synced(
            added=sum(samples[place].id in written for place in found.added),
            changed=sum(samples[place].id in written for place in found.changed)
            + len(found.retold),
            moved=len(moved) + len(found.relocated),
            deleted=sum(id not in moved for id in gone),
            unchanged=found.unchanged,
            rows=len(self.index) if self.texts else len(table),
            skipped=tuple(skipped),
        )

    def _keep(self, waiting: set[str]) -> None:
        """Rows of known vectors are written anew where they differ, and all that is known is noted."""
        found = self.found
        same = [*found.retold, *found.resplit, *found.relocated]
        old = {place: self.dataset[place].id for place in same} | found.moved
        if old:
            take_over(self.index, old, self.dataset, self.real)
        fresh = {
            id: one
            for id, one in found.states.items()
            if id not in waiting and self.states.get(id) != one
        }
        stale = self.states.keys() - self.known.keys() - found.states.keys()
        self.states = {id: one for id, one in self.states.items() if id not in stale} | fresh
        if fresh or stale:
            self.journal.write(fresh, stale, whole=self.in_step)

    def _drop(self, gone: list[str], table: set[str]) -> None:
        """Takes out what is gone; the journal then describes the table whole."""
        for start in range(0, len(gone), BLOCK):
            self.index.delete_locked(gone[start : start + BLOCK])
        left = {id: one for id, one in self.states.items() if id in table}
        whole = not self.texts and left.keys() == table
        if gone or whole != self.in_step:
            self.journal.write({}, self.states.keys() - left.keys(), whole=whole)
        if whole:
            self.journal.compact(left)
