"""Rows of one tower: found in the cache, or computed by an engine and kept."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final

import numpy as np

from plait.core import progress
from plait.encoders.base.base import Encoder
from plait.engines.base import Engine, is_cuda, open_first
from plait.engines.cache import FeatureCache, RowStore
from plait.engines.choices import Choice, choices
from plait.engines.tower import fingerprint

Inputs = Mapping[str, np.ndarray]
Batches = Callable[[Sequence[int]], Iterator[tuple[list[int], Inputs]]]
"""Positions that are wanted to batches of (positions, inputs); unusable ones are left out."""

SAVE_SECONDS: Final = 20.0  # what a crash or Ctrl-C may cost

_KEPT_OPEN: Final = 4
_open: OrderedDict[tuple[str, Choice], Engine] = OrderedDict()
_opening = threading.Lock()


class TowerRunner:
    """Runs one tower. The engine is opened only when a row has to be computed.

    Args:
        encoder: read only.
        engine: ``auto``, a kind, or an open engine of this encoder.
        precision: see `plait.engines.choices.choices`.
        cache: where rows are kept; None for nowhere.
        slot: see `FeatureCache.store`.
    """

    def __init__(
        self,
        encoder: Encoder,
        engine: str | Engine = "auto",
        precision: str = "auto",
        *,
        cache: FeatureCache | None = None,
        slot: str = "",
    ) -> None:
        self.encoder, self.cache, self.slot = encoder, cache, slot
        self._engine: Engine | None = None
        self._opened: dict[Choice, _Store] = {}
        if isinstance(engine, str):
            self._wanted = choices(engine, precision, cuda=is_cuda(encoder))
        else:
            self._engine = engine
            self._wanted = [_choice(engine)]
        self._fingerprint = "" if cache is None else fingerprint(encoder)
        if cache is not None:
            *first, last = self._wanted
            known = [c for c in first if not self._is_passed_over(cache, c)]
            self._wanted = [*known, last]
            # Chosen before: a run that goes on must not choose anew, on other rows.
            if cache.is_taken(self._fingerprint, self.ran.name, self.ran.precision):
                self._wanted = [self.ran]

    @property
    def ran(self) -> Choice:
        """The engine that computes the rows, or computed those in the cache."""
        return self._wanted[0]

    def rows(self, keys: Sequence[bytes], batches: Batches, title: str) -> np.ndarray:
        """(n, D) float32 rows; equal keys are computed once, and unusable ones are zero."""
        while True:
            store = self._store()
            found = store.find(keys)
            result = np.zeros((len(keys), store.width or self.encoder.width), np.float32)
            if found.any():
                result[found] = store.rows([key for key, there in zip(keys, found) if there])
            first_place: dict[bytes, int] = {}
            for position in np.flatnonzero(~found).tolist():
                first_place.setdefault(keys[position], position)
            missing = list(first_place.values())
            if not missing or self._compute(missing, keys, batches, store, result, title):
                break
        for position in np.flatnonzero(~found).tolist():
            result[position] = result[first_place[keys[position]]]
        return result

    def _compute(
        self,
        missing: list[int],
        keys: Sequence[bytes],
        batches: Batches,
        store: _Store,
        result: np.ndarray,
        title: str,
    ) -> bool:
        """Fills rows of ``result``; False when another engine was chosen on the way."""
        stream = _generator(batches(missing))
        with closing(stream), progress.bar(title, len(missing)) as bar:
            saver = _Saver(store, keys)
            try:
                for positions, inputs in stream:
                    if self._engine is None and not self._open(inputs):
                        return False
                    assert self._engine is not None
                    rows = self._engine.run(inputs)
                    result[positions] = rows
                    saver.add(positions, rows)
                    bar.advance(len(positions), note=str(self.ran))
            finally:
                saver.save()
        if self.cache is not None and isinstance(store, RowStore):
            self.cache.prune(keep=store.folder)
        return True

    def _open(self, inputs: Inputs) -> bool:
        """Opens the engine on real inputs; False when it is not the one first wanted.

        Conversion takes seconds, so the engines of towers that are cached stay open for the next
        call. Torch engines do not: they follow their encoder, whose weights may change.
        """
        key = (self._fingerprint, self._wanted[0])
        rejected: list[Choice] = []
        with _opening:
            known = _open.get(key) if self._fingerprint else None
            if known is not None:
                _open.move_to_end(key)
                self._engine = known
            else:
                self._engine, rejected = open_first(self.encoder, self._wanted, inputs)
                if self._fingerprint and self._engine.name != "torch":
                    _open[self._fingerprint, _choice(self._engine)] = self._engine
                    while len(_open) > _KEPT_OPEN:
                        _open.popitem(last=False)
        self._wanted = [_choice(self._engine)]
        if self.cache is not None:
            for choice in rejected:
                self.cache.pass_over(self._fingerprint, choice.name, choice.precision)
            self.cache.take(self._fingerprint, self.ran.name, self.ran.precision)
        return not rejected

    def _store(self) -> _Store:
        if self.cache is None:
            return _Nowhere()
        if self.ran not in self._opened:  # once: all its files are read then
            ran = self.ran
            self._opened[ran] = self.cache.store(
                self._fingerprint, ran.name, ran.precision, self.slot
            )
        return self._opened[self.ran]

    def _is_passed_over(self, cache: FeatureCache, choice: Choice) -> bool:
        return cache.is_passed_over(self._fingerprint, choice.name, choice.precision)


def _choice(engine: Engine) -> Choice:
    return Choice(engine.name, engine.precision)


class _Nowhere:
    """A store that keeps nothing."""

    width = None

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        return np.zeros(len(keys), dtype=bool)

    def rows(self, keys: Sequence[bytes]) -> np.ndarray:
        return np.empty((0, 0), np.float32)

    def add(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        pass


_Store = RowStore | _Nowhere


class _Saver:
    """Stores rows now and then, so that an interrupted run keeps most of its work."""

    def __init__(self, store: _Store, keys: Sequence[bytes]) -> None:
        self.store, self.keys = store, keys
        self.positions: list[int] = []
        self.blocks: list[np.ndarray] = []
        self.last = time.monotonic()

    def add(self, positions: Sequence[int], rows: np.ndarray) -> None:
        if isinstance(self.store, _Nowhere):
            return
        self.positions += positions
        self.blocks.append(rows)
        if time.monotonic() - self.last > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self.blocks:
            keys = [self.keys[position] for position in self.positions]
            self.store.add(keys, np.concatenate(self.blocks))
        self.positions, self.blocks, self.last = [], [], time.monotonic()


def _generator(
    batches: Iterator[tuple[list[int], Inputs]],
) -> Generator[tuple[list[int], Inputs], None, None]:
    """As a generator, which can be closed: that stops its decoding threads."""
    yield from batches
