"""Batching across requests, deadlines, cancelled requests, the bounded queue, faults of a lane."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from plait.core.errors import DataError
from plait.serving.body import Intake
from plait.serving.errors import RequestError
from plait.serving.lanes import Prepared
from plait.serving.queueing import Misfit
from plait.serving.scheduler import Scheduler
from plait.serving.settings import Limits


class Doubling:
    """A lane of numbers: a number costs itself, negative ones do not fit, 13 breaks a pass."""

    name, group, chunk, rows, budget, most = "numbers", "here", 2, 8, 100, 1000.0

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.may_run = threading.Event()
        self.may_run.set()

    def prepare(self, raws: Sequence[int]) -> list[Prepared | Exception]:
        return [
            DataError(f"{raw} is negative") if raw < 0 else Prepared(raw, max(1, raw))
            for raw in raws
        ]

    def run(self, values: Sequence[int]) -> list[int]:
        self.may_run.wait(10)
        self.passes.append(list(values))
        if 13 in values:
            raise RuntimeError("thirteen")
        return [2 * value for value in values]

    def probe(self) -> int:
        return 1


@contextmanager
def scheduled(lane: Doubling, **limits: Any) -> Iterator[Scheduler]:
    made = Scheduler({"numbers": lane}, Limits(**limits), threads=2)
    try:
        yield made
    finally:
        lane.may_run.set()
        made.stop()


def run(scenario: Callable[[Scheduler], Awaitable[Any]], lane: Doubling, **limits: Any) -> Any:
    async def go() -> Any:
        with scheduled(lane, **limits) as scheduler:
            scheduler.start()
            return await scenario(scheduler)

    return asyncio.run(go())


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


async def requested(scheduler: Scheduler, lane: str, raws: Any, *, deadline: float) -> Any:
    with scheduler.admitted({lane: len(raws)}, deadline):
        return await scheduler.do(lane, raws, deadline=deadline)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


def test_each_request_gets_its_own_rows_in_order() -> None:
    async def scenario(scheduler: Scheduler) -> Any:
        asked = [[1, 2, 3], [4], [5, 6]] * 5
        done = await asyncio.gather(
            *(requested(scheduler, "numbers", numbers, deadline=soon()) for numbers in asked)
        )
        return asked, [one.results for one in done], [one.lengths for one in done]

    asked, results, lengths = run(scenario, Doubling())
    assert results == [[2 * number for number in numbers] for numbers in asked]
    assert lengths == asked


def test_requests_that_wait_together_share_passes_within_the_budget() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        lane.may_run.clear()
        first = asyncio.create_task(requested(scheduler, "numbers", [1], deadline=soon()))
        await until(lambda: scheduler.busy_since is not None)
        asked = [10, 50, 11, 49, 12, 9]
        tasks = [
            asyncio.create_task(requested(scheduler, "numbers", [number], deadline=soon()))
            for number in asked
        ]
        await until(lambda: len(scheduler._queues["numbers"].waiting) == len(asked))
        lane.may_run.set()
        await asyncio.gather(first, *tasks)

    run(scenario, lane)
    assert len(lane.passes) == 3
    assert sorted(map(sorted, lane.passes[1:])) == [[9, 10, 11, 12], [49, 50]]


def test_a_small_request_is_served_between_the_parts_of_a_large_one() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        await requested(
            scheduler, "numbers", [1], deadline=soon()
        )  # now the cost of an input is known
        scheduler._queues["numbers"].run_cost = 0.05
        lane.may_run.clear()
        large = asyncio.create_task(requested(scheduler, "numbers", [20] * 40, deadline=soon()))
        await until(lambda: len(scheduler._queues["numbers"].waiting) >= 30)
        small = asyncio.create_task(requested(scheduler, "numbers", [21], deadline=soon()))
        waiting = scheduler._queues["numbers"].waiting
        await until(lambda: any(piece.prepared.value == 21 for piece in waiting))
        lane.may_run.set()
        await asyncio.gather(large, small)

    run(scenario, lane, queue_seconds=100.0)
    place = next(i for i, values in enumerate(lane.passes) if 21 in values)
    assert place <= 4  # of more than eight


def test_an_input_that_does_not_fit_fails_its_request_alone() -> None:
    async def scenario(scheduler: Scheduler) -> Any:
        return await asyncio.gather(
            requested(scheduler, "numbers", [1, 2, -3], deadline=soon()),
            requested(scheduler, "numbers", [4], deadline=soon()),
            return_exceptions=True,
        )

    misfit, done = run(scenario, Doubling())
    assert isinstance(misfit, Misfit)
    assert misfit.place == 2
    assert "negative" in str(misfit)
    assert done.results == [8]


def busy(scheduler: Scheduler) -> int:
    return sum(group.busy_since is not None for group in scheduler._groups)


def test_streams_run_passes_at_the_same_time() -> None:
    async def go() -> None:
        lane = Doubling()
        scheduler = Scheduler({"numbers": lane}, Limits(), threads=2, streams=2)
        scheduler.start()
        try:
            lane.may_run.clear()
            tasks = []
            for count in (1, 2):
                work = requested(scheduler, "numbers", [count], deadline=soon())
                tasks.append(asyncio.create_task(work))
                await until(lambda wanted=count: busy(scheduler) == wanted)
            lane.may_run.set()
            assert [done.results for done in await asyncio.gather(*tasks)] == [[2], [4]]
        finally:
            lane.may_run.set()
            scheduler.stop()

    asyncio.run(go())


def test_what_breaks_a_pass_is_found_out_and_the_others_are_answered() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> Any:
        lane.may_run.clear()
        tasks = [
            asyncio.create_task(requested(scheduler, "numbers", [number], deadline=soon()))
            for number in (12, 13, 14)
        ]
        await until(lambda: scheduler.pending == 3)
        lane.may_run.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    twelve, thirteen, fourteen = run(scenario, lane)
    assert (twelve.results, fourteen.results) == ([24], [28])
    assert isinstance(thirteen, RuntimeError)


def test_deadlines_pass_and_nothing_is_left_behind() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        lane.may_run.clear()
        with pytest.raises(RequestError) as caught:
            await requested(scheduler, "numbers", [1, 2], deadline=soon(0.1))
        assert caught.value.status == 504
        assert scheduler.pending == 0
        lane.may_run.set()
        done = await requested(scheduler, "numbers", [3], deadline=soon())
        assert done.results == [6]

    run(scenario, lane)


def test_a_cancelled_request_is_dropped_before_its_pass() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        lane.may_run.clear()
        first = asyncio.create_task(requested(scheduler, "numbers", [1], deadline=soon()))
        await until(lambda: scheduler.busy_since is not None)
        gone = asyncio.create_task(requested(scheduler, "numbers", [7, 8], deadline=soon()))
        await until(lambda: len(scheduler._queues["numbers"].waiting) == 2)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert scheduler.pending == 1
        lane.may_run.set()
        await first
        await requested(scheduler, "numbers", [9], deadline=soon())

    run(scenario, lane)
    assert not {7, 8} & {value for values in lane.passes for value in values}


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        lane.may_run.clear()
        large = asyncio.create_task(requested(scheduler, "numbers", [1] * 9, deadline=soon()))
        await until(lambda: scheduler.pending == 9)
        with pytest.raises(RequestError) as caught:
            await requested(scheduler, "numbers", [1, 2], deadline=soon())
        assert caught.value.status == 429
        assert int(caught.value.headers["Retry-After"]) >= 1
        assert caught.value.body()["error"]["type"] == "rate_limit_error"
        one = asyncio.create_task(requested(scheduler, "numbers", [1], deadline=soon()))  # it fits
        await until(lambda: scheduler.pending == 10)
        lane.may_run.set()
        await asyncio.gather(large, one)
        # However many inputs a request has, an idle server takes it.
        assert len((await requested(scheduler, "numbers", [1] * 30, deadline=soon())).results) == 30

    run(scenario, lane, queue=10)


def test_a_wait_that_would_be_too_long_is_refused() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        scheduler._queues["numbers"].run_cost = 0.5
        lane.may_run.clear()
        waiting = [
            asyncio.create_task(requested(scheduler, "numbers", [1], deadline=soon()))
            for _ in range(5)
        ]
        await until(lambda: scheduler.pending == 5)
        with pytest.raises(RequestError) as caught:  # 5 inputs of half a second each
            await requested(scheduler, "numbers", [1], deadline=soon())
        assert caught.value.headers["Retry-After"] == "3"
        lane.may_run.set()
        await asyncio.gather(*waiting)

    run(scenario, lane, queue_seconds=2.3)


def test_too_many_tokens_in_one_request() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        with pytest.raises(Misfit, match="1,000 tokens"):
            await requested(scheduler, "numbers", [90] * 12, deadline=soon())

    run(scenario, Doubling())


def test_the_age_of_the_last_good_pass() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        assert scheduler.age("numbers") == float("inf")
        with pytest.raises(RuntimeError):
            await requested(scheduler, "numbers", [13], deadline=soon())
        assert scheduler.age("numbers") == float("inf")
        await requested(scheduler, "numbers", [1], deadline=soon())
        assert scheduler.age("numbers") < 5

    run(scenario, Doubling())


def test_a_late_event_loop_refuses_new_requests() -> None:
    async def scenario() -> None:
        intake = Intake(Limits(queue_seconds=0.5))
        watch = asyncio.create_task(intake.keep_time())
        await asyncio.sleep(0.06)
        with ExitStack() as held:
            for _ in range(20):
                held.enter_context(intake.admitted())
            time.sleep(0.6)  # what keeps the loop from turning
            await asyncio.sleep(0.06)
            with pytest.raises(RequestError) as caught, intake.admitted():
                pass
            assert caught.value.status == 429
            intake.lag = 0.0
            held.enter_context(intake.admitted())
        assert intake.requests == 0
        watch.cancel()

    asyncio.run(scenario())


def test_the_first_pass_tells_nothing_of_the_next() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        lane.may_run.clear()
        slow = asyncio.create_task(
            scheduler.do("numbers", [1], deadline=soon())  # it opens the engine
        )
        await until(lambda: scheduler.busy_since is not None)
        await asyncio.sleep(0.2)
        assert scheduler.pending == 0  # a probe keeps nobody out
        lane.may_run.set()
        await slow
        assert scheduler._queues["numbers"].run_cost == 0
        await requested(scheduler, "numbers", [1], deadline=soon())
        assert 0 < scheduler._queues["numbers"].run_cost < 0.2

    run(scenario, lane)


def test_the_lanes_of_one_request_do_not_wait_for_each_other() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        scheduler._queues["numbers"].run_cost = 1.0  # ten of them are far beyond the queue's time
        with scheduler.admitted({"numbers": 10}, soon()):
            assert scheduler.pending == 10
            first = scheduler.do("numbers", [1] * 8, deadline=soon())
            second = scheduler.do("numbers", [2] * 2, deadline=soon())
            done = await asyncio.gather(first, second)
            assert [len(one.results) for one in done] == [8, 2]
            with pytest.raises(RequestError), scheduler.admitted({"numbers": 1}, soon()):
                pass
        assert scheduler.pending == 0

    run(scenario, lane, queue_seconds=0.5)


def test_a_pass_that_is_not_full_waits_for_all_that_is_prepared() -> None:
    class Slow(Doubling):
        def prepare(self, raws: Sequence[int]) -> list[Prepared | Exception]:
            time.sleep(0.05 * raws[0])
            return super().prepare(raws)

    lane = Slow()

    async def scenario(scheduler: Scheduler) -> None:
        asked = (scheduler.do("numbers", [n], deadline=soon()) for n in (1, 2, 3, 4))
        await asyncio.gather(*asked)

    run(scenario, lane, batch_wait=5.0)
    assert [sorted(values) for values in lane.passes] == [[1, 2, 3, 4]]
