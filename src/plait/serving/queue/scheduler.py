"""Batching across requests: prepared in threads, run together in one inference thread.

Requests enter from the event loop. Their inputs are prepared in a pool of threads and then wait in
the queue of their lane, each due when its request arrived plus a little for every input of the
request before it: so small requests are served between the parts of a large one, and none starves.
The inference thread takes the lane that had the least time of late (start-time fair queueing), lets
`choose` pick its batch, and hands the rows back to the event loop. Each lane has threads of its own
that prepare, and is refused by its own queue: what one kind of input costs, the others do not pay.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from plait.core.errors import DataError
from plait.serving.base.errors import RequestError, late, overloaded
from plait.serving.base.settings import Limits
from plait.serving.queue.batching import choose
from plait.serving.queue.lanes import HERE, Lane
from plait.serving.queue.preparing import Preparers, parts
from plait.serving.queue.queueing import (
    Done,
    Group,
    Job,
    Misfit,
    Observer,
    Piece,
    Queue,
    Silent,
    smooth,
)

log = logging.getLogger(__name__)

_WINDOW = 4  # batches' worth of waiting inputs among which lengths are matched
_NICE = 5  # of the threads that prepare and infer
_LATELY = 1.0  # seconds of passes after which a third counts of what a lane had
_SHARE = 2.0  # a large request among many small ones gets at least one part in so many


class Scheduler:
    """Runs lanes.

    Args:
        lanes: by name.
        limits: of the queue and of the wait for a fuller batch.
        threads: that prepare.
        streams: how many passes of the lanes that run here may run at the same time.
        observer: for metrics.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        limits: Limits,
        *,
        threads: int,
        streams: int = 1,
        observer: Observer | None = None,
    ) -> None:
        self.limits, self.threads, self.streams = limits, threads, streams
        self.observer: Observer = observer or Silent()
        self._queues = {name: Queue(lane) for name, lane in lanes.items()}
        self._changed = threading.Condition()
        self._stopping = False
        self._preparers = Preparers(lanes, threads, stand_back)
        self._groups = [
            Group([queue for queue in self._queues.values() if queue.lane.group == name])
            for name in sorted({lane.group for lane in lanes.values()})
            for _ in range(streams if name == HERE else 1)
        ]
        self._inference = [
            threading.Thread(target=self._infer, args=(group,), name="inference", daemon=True)
            for group in self._groups
        ]
        self._clock = {lane.group: 0.0 for lane in lanes.values()}  # the latest turn in each group
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Starts the inference threads; called in the event loop."""
        self._loop = asyncio.get_running_loop()
        for thread in self._inference:
            thread.start()

    def stop(self) -> None:
        """Ends the threads; whatever still waits is dropped."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._preparers.stop()
        for thread in self._inference:
            if thread.is_alive():
                thread.join()

    @property
    def busy_since(self) -> float | None:
        """When the longest of the passes that are running began, by the monotonic clock."""
        begun = [group.busy_since for group in self._groups]
        return min((start for start in begun if start is not None), default=None)

    @property
    def pending(self) -> int:
        """Inputs of all requests that are not answered yet."""
        return sum(queue.pending for queue in self._queues.values())

    def age(self, lane: str) -> float:
        """Seconds since a forward pass of the lane last went well."""
        return time.monotonic() - self._queues[lane].succeeded

    def expected_wait(self, lane: str, count: int = 1) -> float:
        """Seconds until ``count`` inputs that came to a lane now would have their turn.

        Lanes that take turns get equal times: one whose work ends sooner than this lane's delays
        it by that work, another by no more than this lane's own. More work will come meanwhile: a
        lane that had as much time lately as this one will have as much again.
        """
        queue = self._queues[lane]
        own = self._work(queue, count)
        others = (
            max(
                min(self._work(other, other.pending), own),
                own * min(1.0, other.lately / queue.lately) if queue.lately else 0.0,
            )
            for other in self._queues.values()
            if other is not queue and other.lane.group == queue.lane.group
        )
        preparing = max(0, queue.preparing - _unprepared_after(queue, _horizon(queue, count)))
        return own + sum(others) + preparing * queue.prepare_cost / self.threads

    def _work(self, queue: Queue, count: int) -> float:
        """Seconds of passes before so many new inputs of a lane, by the latest costs.

        Parts of large requests that are due later than the new inputs are not before them.
        """
        horizon = _horizon(queue, count)
        waiting, load = queue.waiting, queue.load  # other threads replace it, or insert into it
        later = waiting[bisect.bisect_right(waiting, horizon, key=_due) :]
        before = load - sum(piece.prepared.length for piece in later)
        # In preparation, or in the pass that runs.
        unknown = queue.pending - len(waiting) - _unprepared_after(queue, horizon)
        streams = self.streams if queue.lane.group == HERE else 1
        return (
            max(0.0, unknown * queue.run_cost + queue.seconds(before, len(waiting) - len(later)))
            / streams
        )

    @property
    def shortest_wait(self) -> float:
        """The least `expected_wait` of all lanes: while it is too long, nothing is admitted."""
        return min(map(self.expected_wait, self._queues), default=0.0)

    async def do(
        self,
        lane: str,
        raws: Sequence[Any],
        *,
        deadline: float,
        claim: dict[str, int] | None = None,
    ) -> Done:
        """Prepares and runs the inputs of a request in one lane.

        Args:
            lane: by name.
            raws: the inputs.
            deadline: by the monotonic clock.
            claim: of the request, from `admitted`.

        Raises:
            RequestError: 504 when the deadline passes, 429 for slow inputs when many are waiting.
            Exception: what is wrong with an input, with its ``place``.
        """
        queue = self._queues[lane]
        if not raws:
            return Done([], [])
        loop = asyncio.get_running_loop()
        job = Job(
            queue,
            raws,
            deadline,
            loop.create_future(),
            results=[None] * len(raws),
            lengths=[0] * len(raws),
            left=len(raws),
            cost=0,
            arrived=time.monotonic(),
            claim=claim,
        )
        try:
            work_of = list(parts(queue.lane, raws))
            if any(slow for _, _, slow in work_of):
                self._preparers.admit_slow(deadline)
            if 0 < sum(map(queue.lane.cost, raws)) <= queue.lane.instant:
                with self._changed:
                    queue.preparing += len(raws)
                self._prepare(job, 0, len(raws), slow=False)
                work_of = []
            if len(work_of) > 1:
                queue.large.add(job)
            for start, end, slow in work_of:
                with self._changed:
                    queue.preparing += 0 if slow else end - start
                due = job.arrived + start * _SHARE * queue.prepare_cost
                work = partial(self._prepare, job, start, end, slow)
                self._preparers.submit(lane, work, due=due, slow=slow)
            async with asyncio.timeout_at(loop.time() + deadline - time.monotonic()):
                await job.future
        except TimeoutError:
            raise late() from None
        finally:
            job.gone = True  # whatever is left of it is skipped
            queue.large.discard(job)
        return Done(job.results, job.lengths)

    @contextmanager
    def admitted(self, counts: Mapping[str, int], deadline: float) -> Iterator[dict[str, int]]:
        """One request: so many inputs by lane, each of which is pending until it has its result.

        Yields:
            what is still pending of it by lane, for `do`.

        Raises:
            RequestError: 429 when the queue of a lane is full, or so long that the wait is too.
        """
        for lane, count in counts.items():
            self._admit(lane, count, deadline)
        claim = dict(counts)
        for lane, count in claim.items():
            self._queues[lane].pending += count
        try:
            yield claim
        finally:
            for lane, count in claim.items():
                self._queues[lane].pending -= count

    def _admit(self, lane: str, count: int, deadline: float) -> None:
        pending, wait = self._queues[lane].pending, self.expected_wait(lane, count)
        if not pending:  # whatever a request may hold, an idle lane takes it
            return
        if pending + count > self.limits.queue:
            raise overloaded(wait, f"{pending} inputs wait")
        if wait > min(self.limits.queue_seconds, deadline - time.monotonic()):
            raise overloaded(wait, f"the wait would be {wait:.1f} s")

    def _prepare(self, job: Job, start: int, end: int, slow: bool) -> None:
        """Prepares a part of a request, in a thread or where it arrived."""
        queue, ready = job.lane, []
        raws = job.raws[start:end]
        try:
            if self._is_over(job, len(raws)):
                return
            began = time.monotonic()
            found = queue.lane.prepare(raws)
            now = time.monotonic()
            self.observer.prepared(queue.lane.name, len(raws), now - began)
            if not slow:  # what slow ones cost, only slow ones wait for
                queue.prepare_cost = smooth(queue.prepare_cost, (now - began) / len(raws))
            for place, one in enumerate(found, start):
                if isinstance(one, Exception):
                    self._call(job.fail, Misfit(place, one))
                    return
                job.cost += one.length
                ready.append(Piece(job, place, one, now))
            if job.cost > queue.lane.most:
                ready = []
                problem = DataError(
                    f"all inputs together have more than {queue.lane.most:,.0f} tokens: send less at "
                    "a time"
                )
                self._call(job.fail, Misfit(start, problem))
        except Exception as error:  # a fault of ours must not leave a request waiting
            self._call(job.fail, error)
        finally:
            with self._changed:
                queue.preparing -= 0 if slow else len(raws)
                job.ready += len(raws)
                if job.ready == len(job.raws):
                    queue.large.discard(job)
                if ready and not queue.waiting:  # it saved up no turns while it had nothing to run
                    queue.turn = max(queue.turn, self._clock[queue.lane.group])
                for piece in ready:
                    piece.due = job.arrived + job.ahead
                    job.ahead += _SHARE * queue.seconds(piece.prepared.length)
                    bisect.insort(queue.waiting, piece, key=_due)
                    queue.load += piece.prepared.length
                self._changed.notify_all()

    def _is_over(self, job: Job, count: int) -> bool:
        """Whether nobody waits for a job any more."""
        if job.gone:
            self.observer.dropped(job.lane.lane.name, count, "gone")
            return True
        if time.monotonic() > job.deadline:
            self.observer.dropped(job.lane.lane.name, count, "deadline")
            return True
        return False

    def _infer(self, group: Group) -> None:
        """An inference thread."""
        stand_back()
        while True:
            with self._changed:
                queue = self._next(group)
                while queue is None and not self._stopping:
                    self._changed.wait()
                    queue = self._next(group)
                if queue is None:
                    return
                # Every input that is ready wakes this thread: it waits for all, or for so long.
                self._changed.wait_for(
                    lambda queue=queue: self._stopping or not self._could_be_fuller(queue),  # type: ignore[misc]
                    self.limits.batch_wait,
                )
                batch = self._take(queue)
                self._clock[queue.lane.group] = queue.turn
            if batch:
                self._run(group, queue, batch)

    def _next(self, group: Group) -> Queue | None:
        """The lane that had the least time; of equal ones that whose next input waited longest."""
        ready = [queue for queue in group.queues if queue.waiting]
        return min(ready, key=lambda queue: (queue.turn, queue.waiting[0].since), default=None)

    def _could_be_fuller(self, queue: Queue) -> bool:
        return queue.preparing > 0 and len(queue.waiting) < queue.lane.rows

    def _take(self, queue: Queue) -> list[Piece]:
        """The pieces of the next pass, taken out of the queue."""
        alive = [piece for piece in queue.waiting if not self._is_over(piece.job, 1)]
        if not alive:
            queue.waiting, queue.load = [], 0
            return []
        window = alive[: _WINDOW * queue.lane.rows]
        lengths = [piece.prepared.length for piece in window]
        places = choose(lengths, budget=queue.lane.budget, rows=queue.lane.rows)
        batch = [window[place] for place in places]
        taken = set(map(id, batch))
        queue.waiting = [piece for piece in alive if id(piece) not in taken]
        queue.load = sum(piece.prepared.length for piece in queue.waiting)
        return batch

    def _run(self, group: Group, queue: Queue, batch: list[Piece]) -> None:
        """One forward pass, and its rows back to the event loop."""
        began = group.busy_since = time.monotonic()
        waited = began - min(piece.since for piece in batch)
        try:
            results = _results(queue.lane, batch)
        finally:
            group.busy_since = None
        now = time.monotonic()
        with self._changed:
            queue.turn += now - began
            self._remember(queue, now - began)
        lengths = [piece.prepared.length for piece in batch]
        if queue.has_run:  # the first pass opens the engine, and tells nothing of the next
            queue.learn(lengths, now - began)
        queue.has_run = True
        if any(not isinstance(result, Exception) for result in results):
            queue.succeeded = now
        self.observer.ran(queue.lane.name, lengths, now - began, waited)
        self._call(_deliver, batch, results)

    def _remember(self, queue: Queue, seconds: float) -> None:
        """Counts a pass of a lane in what it and those beside it had lately."""
        faded = math.exp(-seconds / _LATELY)
        for other in self._queues.values():
            if other.lane.group == queue.lane.group:
                other.lately *= faded
        queue.lately += seconds

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Calls in the event loop's thread."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def stand_back() -> None:
    """Lets the event loop's thread go first: a loop that comes too late cannot even refuse."""
    if sys.platform == "linux":  # elsewhere this is the priority of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _results(lane: Lane, batch: list[Piece]) -> list[Any]:
    """A result or an exception for each piece; what fails together is tried one by one."""
    values = [piece.prepared.value for piece in batch]
    try:
        return list(lane.run(values))
    except RequestError as error:  # another server's refusal: no input is at fault
        return [error] * len(batch)
    except Exception as error:  # engines raise many kinds; the worker outlives all of them
        log.exception("a forward pass of %s with %d inputs failed", lane.name, len(batch))
        if len(batch) == 1:
            return [error]
    results: list[Any] = []
    for value in values:
        try:
            results.extend(lane.run([value]))
        except Exception as error:  # this one alone
            results.append(error)
    return results


def _deliver(batch: list[Piece], results: list[Any]) -> None:
    for piece, result in zip(batch, results, strict=True):
        job = piece.job
        if job.gone:
            continue
        if isinstance(result, Exception):
            job.fail(result)
            continue
        if job.claim is not None:
            job.claim[job.lane.lane.name] -= 1
            job.lane.pending -= 1
        job.results[piece.place] = result
        job.lengths[piece.place] = piece.prepared.length
        job.left -= 1
        if job.left == 0 and not job.future.done():
            job.future.set_result(None)


def _horizon(queue: Queue, count: int) -> float:
    """When the last of so many inputs that came to a lane now would be due."""
    return time.monotonic() + (count - 1) * _SHARE * queue.run_cost


def _unprepared_after(queue: Queue, horizon: float) -> int:
    """Inputs in preparation that will be due later, by what an input of the usual length costs."""
    step = _SHARE * queue.run_cost
    if not step:
        return 0
    return sum(
        max(0, len(job.raws) - max(job.ready, 1 + int((horizon - job.arrived) / step)))
        for job in tuple(queue.large)  # other threads take from it
    )


def _due(piece: Piece) -> float:
    return piece.due
