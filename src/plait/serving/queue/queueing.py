"""What waits in a scheduler: requests, their inputs, the queues of lanes; and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from plait.serving.queue.lanes import Lane, Prepared

_SMOOTHING = 0.2  # weight of the newest pass in the running costs


@runtime_checkable
class Observer(Protocol):
    """Learns what happens, for metrics. Called from several threads."""

    def prepared(self, lane: str, count: int, seconds: float) -> None:
        """So many inputs were prepared."""

    def ran(self, lane: str, lengths: Sequence[int], seconds: float, waited: float) -> None:
        """A forward pass; ``waited``: seconds that its oldest input was in the queue."""

    def dropped(self, lane: str, count: int, reason: str) -> None:
        """Inputs that nobody waits for any more: ``gone`` or ``deadline``."""


class Silent:
    """An observer that keeps nothing."""

    def prepared(self, lane: str, count: int, seconds: float) -> None:
        """See `Observer`."""

    def ran(self, lane: str, lengths: Sequence[int], seconds: float, waited: float) -> None:
        """See `Observer`."""

    def dropped(self, lane: str, count: int, reason: str) -> None:
        """See `Observer`."""


@dataclass(slots=True, eq=False)
class Job:
    """The inputs of one request in one lane."""

    lane: Queue
    raws: Sequence[Any]
    deadline: float
    future: asyncio.Future[None]
    results: list[Any]
    lengths: list[int]
    left: int
    cost: int  # lengths of the inputs that are prepared
    arrived: float
    ready: int = 0  # inputs that are prepared
    ahead: float = 0.0  # seconds after its arrival at which its next input is due
    claim: dict[str, int] | None = None  # inputs by lane that its request still has pending
    gone: bool = False

    def fail(self, error: Exception) -> None:
        """Ends the job, from the event loop's thread."""
        self.gone = True
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class Piece:
    """One prepared input that waits."""

    job: Job
    place: int
    prepared: Prepared
    since: float
    due: float = 0.0


@dataclass(slots=True, eq=False)
class Queue:
    """The inputs of one lane."""

    lane: Lane
    waiting: list[Piece] = field(default_factory=list)
    pending: int = 0  # inputs of admitted requests that have no result yet
    preparing: int = 0  # inputs
    large: set[Job] = field(default_factory=set)  # requests that are prepared in parts, until then
    has_run: bool = False
    load: int = 0  # lengths of all that wait
    usual: float = 0.0  # length of an input, smoothed; 0 until known
    run_cost: float = 0.0  # seconds of an input of the usual length, smoothed; 0 until known
    prepare_cost: float = 0.0
    turn: float = 0.0  # seconds of passes that it had, see `Scheduler._next`
    lately: float = 0.0  # seconds of passes, see `Scheduler.expected_wait`
    succeeded: float = float("-inf")  # when a pass last went well, monotonic

    def seconds(self, length: int, count: int = 1) -> float:
        """Of passes with so many inputs that have this length together, by the latest costs."""
        return self.run_cost * (length / self.usual if self.usual else count)

    def learn(self, lengths: Sequence[int], seconds: float) -> None:
        """What a pass took: each of its inputs was padded to the longest."""
        mean = sum(lengths) / len(lengths)
        unit = self.run_cost / (self.usual or mean)
        self.usual = smooth(self.usual, mean)
        self.run_cost = self.usual * smooth(unit, seconds / (len(lengths) * max(lengths)))


@dataclass(slots=True, eq=False)
class Group:
    """Lanes that take turns in one inference thread.

    Attributes:
        queues: of the lanes.
        busy_since: when the pass that is running began, by the monotonic clock.
    """

    queues: list[Queue]
    busy_since: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a request's inputs: a result and a length for each."""

    results: Sequence[Any]
    lengths: Sequence[int]


def smooth(known: float, newest: float) -> float:
    """A running mean in which the newest value has a fifth of the weight; 0 is not known yet."""
    return newest if known == 0 else known + _SMOOTHING * (newest - known)


class Misfit(Exception):
    """An input that cannot be used.

    Args:
        place: which of the request's inputs in its lane.
        problem: what is wrong with it.
    """

    def __init__(self, place: int, problem: Exception) -> None:
        super().__init__(str(problem))
        self.place, self.problem = place, problem
