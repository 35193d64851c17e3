"""Threads that prepare inputs: each lane has its own, and so have pictures that take long.

What costs much in one place then delays nothing in another. In each place the work that is due first
goes first, so that a small request passes between the parts of a large one.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from plait.serving.base.errors import overloaded
from plait.serving.queue.lanes import Lane

STEP_COST: Final = 1 << 14  # of the inputs that are prepared in one go, see `Lane.cost`
_SMOOTHING: Final = 0.2  # weight of the newest work in the running cost


class Preparers:
    """Threads for lanes.

    Args:
        lanes: names.
        threads: of each lane, and of all slow inputs together.
        begin: called in each thread at its start.
    """

    def __init__(self, lanes: Iterable[str], threads: int, begin: Callable[[], None]) -> None:
        self._pools = {name: _Pool(f"prepare-{name}", threads, begin) for name in lanes}
        self._slow = _Pool("prepare-slow", threads, begin)

    def submit(self, lane: str, work: Callable[[], None], *, due: float, slow: bool) -> None:
        """``work`` is called in a thread, after what is due earlier."""
        (self._slow if slow else self._pools[lane]).submit(work, due)

    def admit_slow(self, deadline: float) -> None:
        """Raises RequestError, 429, when slow inputs would wait for half of the time that is left."""
        wait = self._slow.expected_wait
        if wait > (deadline - time.monotonic()) / 2:
            raise overloaded(wait, f"pictures that take long would wait {wait:.1f} s")

    def stop(self) -> None:
        """Ends the threads; what waits is dropped."""
        for pool in (self._slow, *self._pools.values()):
            pool.stop()


class _Pool:
    """Threads that take the work that is due first."""

    def __init__(self, name: str, threads: int, begin: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(threads, name, initializer=begin)
        self._threads, self._cost = threads, 0.0
        self._work: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._count = 0

    @property
    def expected_wait(self) -> float:
        """Seconds until what waits and what is being done is over, by what was done lately."""
        return self._count * self._cost / self._threads

    def submit(self, work: Callable[[], None], due: float) -> None:
        with self._lock:
            heapq.heappush(self._work, (due, next(self._numbers), work))
            self._count += 1
        self._executor.submit(self._next)

    def _next(self) -> None:
        with self._lock:
            _, _, work = heapq.heappop(self._work)
        began = time.monotonic()
        try:
            work()
        finally:
            with self._lock:
                self._count -= 1
                self._cost += _SMOOTHING * (time.monotonic() - began - self._cost)

    def stop(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def parts(lane: Lane, raws: Sequence[Any]) -> Iterator[tuple[int, int, bool]]:
    """(first, last, whether slow) of the inputs of a request that are prepared in one go.

    At most `Lane.chunk` of them, which cost at most `STEP_COST` together unless one costs more.
    """
    start, cost, slow = 0, 0, False
    for place, raw in enumerate(raws):
        more, this_slow = lane.cost(raw), lane.is_slow(raw)
        if place > start and (
            place - start >= lane.chunk or cost + more > STEP_COST or this_slow != slow
        ):
            yield start, place, slow
            start, cost = place, 0
        cost, slow = cost + more, this_slow
    if raws:
        yield start, len(raws), slow
