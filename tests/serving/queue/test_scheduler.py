"""Batching across requests, deadlines, cancelled requests, the bounded queue, faults of a lane."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from plait.core.errors import DataError
from plait.serving.base.errors import RequestError
from plait.serving.base.settings import Limits
from plait.serving.queue.lanes import Prepared
from plait.serving.queue.preparing import STEP_COST, Preparers, parts
from plait.serving.queue.queueing import Misfit, Queue
from plait.serving.queue.scheduler import Scheduler
from plait.serving.service.body import Intake

SLOW = 900  # this number and the nine after it are slow to prepare


class Doubling:
    """A lane of numbers: a number costs itself, negative ones do not fit, 13 breaks a pass."""

    name, group, chunk, instant, rows, budget, most = "numbers", "here", 2, 0, 8, 100, 1000.0

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.may_run = threading.Event()
        self.may_run.set()

    def cost(self, raw: int) -> int:
        return 0

    def is_slow(self, raw: int) -> bool:
        return SLOW <= raw < SLOW + 10

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
        queue = scheduler._queues["numbers"]
        await until(lambda: any(piece.prepared.value == 21 for piece in queue.waiting))
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


class Lettered(Doubling):
    """A second lane, whose passes count with those of the first."""

    def __init__(self, name: str, group: str, passes: list[list[int]]) -> None:
        super().__init__()
        self.name, self.group, self.passes, self.most = name, group, passes, 1e6


@contextmanager
def three_lanes(**limits: Any) -> Iterator[tuple[Scheduler, list[list[int]], threading.Event]]:
    """Lanes ``a`` and ``b`` that take turns, and ``c`` that runs elsewhere."""
    passes: list[list[int]] = []
    lanes = {name: Lettered(name, "here", passes) for name in "ab"}
    lanes["c"] = Lettered("c", "there", [])
    may_run = threading.Event()
    for lane in lanes.values():
        lane.may_run = may_run
    may_run.set()
    made = Scheduler(lanes, Limits(**limits), threads=2)
    try:
        yield made, passes, may_run
    finally:
        may_run.set()
        made.stop()


def test_the_wait_of_a_lane_is_its_own_and_what_takes_turns_with_it() -> None:
    with three_lanes() as (scheduler, _, _):
        for name, pending, cost in (("a", 10, 0.1), ("b", 2, 0.1), ("c", 50, 0.2)):
            queue = scheduler._queues[name]
            queue.pending, queue.run_cost, queue.prepare_cost = pending, cost, 0.0
        assert scheduler.expected_wait("a") == pytest.approx(1.0 + 0.2)
        assert scheduler.expected_wait("b") == pytest.approx(0.2 + 0.2)
        assert scheduler.expected_wait("c") == pytest.approx(10.0)
        assert scheduler.shortest_wait == pytest.approx(0.4)
        for name, seconds in (("a", 1.0), ("b", 0.5), ("c", 9.0)):  # c takes no turns with them
            scheduler._queues[name].lately = seconds
        assert scheduler.expected_wait("a") == pytest.approx(1.0 + 0.5)
        assert scheduler.expected_wait("b") == pytest.approx(0.2 + 0.2)
        scheduler._remember(scheduler._queues["b"], 1.0)
        assert scheduler._queues["a"].lately == pytest.approx(0.3679, abs=1e-4)
        assert scheduler._queues["b"].lately == pytest.approx(1.1839, abs=1e-4)
        assert scheduler._queues["c"].lately == 9.0
        scheduler._queues["b"].prepare_cost = 0.5  # by two threads
        scheduler._queues["b"].preparing = 2
        assert scheduler.expected_wait("b") == pytest.approx(0.4 + 0.5)


def test_a_lane_is_refused_by_its_own_queue_alone() -> None:
    async def scenario() -> None:
        with three_lanes(queue=100, queue_seconds=2.0) as (scheduler, _, _):
            scheduler._queues["a"].run_cost = 1.0
            scheduler._queues["b"].run_cost = 0.01
            with scheduler.admitted({"a": 60}, soon()):
                for counts in ({"a": 1}, {"a": 1, "b": 1}, {"a": 60}):
                    with pytest.raises(RequestError), scheduler.admitted(counts, soon()):
                        pass
                with scheduler.admitted({"b": 1}, soon()), scheduler.admitted({"b": 60}, soon()):
                    assert scheduler.pending == 121
            assert scheduler.pending == 0

    asyncio.run(scenario())


def test_a_deadline_that_is_shorter_than_the_queue_is_refused_at_once() -> None:
    async def scenario() -> None:
        with three_lanes(queue_seconds=100.0) as (scheduler, _, _):
            scheduler._queues["a"].run_cost = 0.5
            with scheduler.admitted({"a": 10}, soon()):
                with pytest.raises(RequestError) as caught, scheduler.admitted({"a": 1}, soon(4.0)):
                    pass
                assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "5")
                with scheduler.admitted({"a": 1}, soon(6.0)):
                    pass

    asyncio.run(scenario())


def test_a_lane_with_much_work_does_not_starve_another() -> None:
    async def scenario() -> list[list[int]]:
        with three_lanes(queue_seconds=100.0) as (scheduler, passes, may_run):
            scheduler.start()
            may_run.clear()
            busy = [asyncio.create_task(scheduler.do("a", [100], deadline=soon()))]
            await until(lambda: scheduler.busy_since is not None)
            busy.append(asyncio.create_task(scheduler.do("a", [100] * 20, deadline=soon())))
            await until(lambda: len(scheduler._queues["a"].waiting) == 20)
            late = asyncio.create_task(scheduler.do("b", [1, 2], deadline=soon()))
            await until(lambda: len(scheduler._queues["b"].waiting) == 2)
            may_run.set()
            await asyncio.gather(late, *busy)
            return passes

    passes = asyncio.run(scenario())
    assert len(passes) == 22  # of lane a one input each
    assert passes.index([1, 2]) <= 1


def test_the_next_lane_had_the_least_time_and_of_equal_ones_waited_longest() -> None:
    with three_lanes() as (scheduler, _, _):
        a, b = scheduler._queues["a"], scheduler._queues["b"]
        (group,) = (one for one in scheduler._groups if a in one.queues)
        assert scheduler._next(group) is None
        a.waiting, b.waiting = [SimpleNamespace(since=1.0)], [SimpleNamespace(since=2.0)]
        assert scheduler._next(group) is a
        a.waiting[0].since = 3.0
        assert scheduler._next(group) is b
        b.turn = 0.1
        assert scheduler._next(group) is a


def test_a_lane_saves_up_no_turns_while_it_is_idle() -> None:
    async def scenario() -> None:
        with three_lanes(queue_seconds=100.0) as (scheduler, _, _):
            scheduler.start()
            a, b = scheduler._queues["a"], scheduler._queues["b"]
            a.turn = 1000.0  # it had much time while b had nothing to run
            await scheduler.do("a", [1], deadline=soon())
            await scheduler.do("b", [1], deadline=soon())
            assert 1000.0 < b.turn < 1010.0

    asyncio.run(scenario())


def test_inputs_of_a_lane_are_run_in_the_order_of_their_arrival() -> None:
    lane = Doubling()

    async def scenario(scheduler: Scheduler) -> None:
        queue = scheduler._queues["numbers"]
        lane.may_run.clear()
        tasks = [asyncio.create_task(requested(scheduler, "numbers", [99], deadline=soon()))]
        await until(lambda: scheduler.busy_since is not None)
        for count, number in enumerate((61, 64, 62, 65, 63), 1):
            work = requested(scheduler, "numbers", [number], deadline=soon())
            tasks.append(asyncio.create_task(work))
            await until(lambda wanted=count: len(queue.waiting) == wanted)
        lane.may_run.set()
        await asyncio.gather(*tasks)

    run(scenario, lane)
    assert lane.passes == [[99], [61], [64], [62], [65], [63]]


def test_slow_preparation_of_one_lane_does_not_hold_up_another() -> None:
    class Slow(Lettered):
        def prepare(self, raws: Sequence[int]) -> list[Prepared | Exception]:
            gate.wait(10)
            return super().prepare(raws)

    gate = threading.Event()

    async def scenario() -> None:
        lanes = {"a": Slow("a", "here", []), "b": Lettered("b", "here", [])}
        scheduler = Scheduler(lanes, Limits(), threads=2)
        scheduler.start()
        try:
            slow = asyncio.create_task(scheduler.do("a", [1] * 20, deadline=soon()))
            await until(lambda: scheduler._queues["a"].preparing == 20)
            done = await scheduler.do("b", [4], deadline=soon(5.0))
            assert done.results == [8]
            assert not slow.done()
            gate.set()
            await slow
        finally:
            gate.set()
            scheduler.stop()

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_what_computes_lets_the_event_loop_go_first() -> None:
    nice: dict[str, int] = {}

    class Noting(Doubling):
        def prepare(self, raws: Sequence[int]) -> list[Prepared | Exception]:
            nice["prepare"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            return super().prepare(raws)

        def run(self, values: Sequence[int]) -> list[int]:
            nice["run"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            return super().run(values)

    async def scenario(scheduler: Scheduler) -> None:
        await scheduler.do("numbers", [1], deadline=soon())
        nice["loop"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    run(scenario, Noting())
    assert nice["prepare"] > nice["loop"]
    assert nice["run"] > nice["loop"]


def test_inputs_that_are_slow_to_prepare_delay_no_others() -> None:
    class Blocking(Doubling):
        may_prepare = threading.Event()

        def prepare(self, raws: Sequence[int]) -> list[Prepared | Exception]:
            if self.is_slow(raws[0]):
                self.may_prepare.wait(10)
            return super().prepare(raws)

    lane = Blocking()

    async def scenario(scheduler: Scheduler) -> Any:
        waiting = [
            asyncio.create_task(requested(scheduler, "numbers", [SLOW + n], deadline=soon()))
            for n in range(4)  # twice as many as threads
        ]
        await asyncio.sleep(0.05)
        quick = [await requested(scheduler, "numbers", [n], deadline=soon(2)) for n in range(10)]
        lane.may_prepare.set()
        return [done.results for done in quick], await asyncio.gather(*waiting)

    results, slow = run(scenario, lane)
    assert results == [[2 * n] for n in range(10)]
    assert [done.results for done in slow] == [[2 * (SLOW + n)] for n in range(4)]


def test_slow_inputs_are_refused_when_those_before_them_take_too_long() -> None:
    async def scenario(scheduler: Scheduler) -> Any:
        pool = scheduler._preparers._slow
        pool._count, pool._cost = 4, 6.0  # two threads: twelve seconds
        with pytest.raises(RequestError) as caught:
            await requested(scheduler, "numbers", [SLOW], deadline=soon(20))
        assert (await requested(scheduler, "numbers", [1], deadline=soon(20))).results == [2]
        assert (await requested(scheduler, "numbers", [SLOW], deadline=soon(30))).results
        return caught.value

    refusal = run(scenario, Doubling())
    assert refusal.status == 429 and refusal.headers["Retry-After"] == "12"


def test_a_request_is_prepared_in_parts_of_bounded_cost() -> None:
    class Costly(Doubling):
        chunk = 64

        def cost(self, raw: int) -> int:
            return raw

    half = STEP_COST // 2
    found = list(parts(Costly(), [1, 2, 3, half, half, half, 3 * half, 1, SLOW, SLOW, 1]))
    assert found[:4] == [(0, 4, False), (4, 6, False), (6, 7, False), (7, 8, False)]
    assert found[4:] == [(8, 10, True), (10, 11, False)]
    assert list(parts(Doubling(), [1] * 5)) == [(0, 2, False), (2, 4, False), (4, 5, False)]
    assert list(parts(Doubling(), [])) == []


def test_what_is_due_first_is_prepared_first() -> None:
    done: list[str] = []
    may_go = threading.Event()
    pool = Preparers(["numbers"], 1, lambda: None)
    try:
        pool.submit("numbers", lambda: may_go.wait(10) and None, due=0.0, slow=False)
        for name, due in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
            pool.submit("numbers", partial(done.append, name), due=due, slow=False)
        may_go.set()
    finally:
        deadline = soon()
        while len(done) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        pool.stop()
    assert done == ["early", "middle", "late"]


def test_a_large_request_delays_a_small_one_by_what_is_due_alone() -> None:
    lane = Doubling()
    lane.most = 1e6

    async def scenario(scheduler: Scheduler) -> None:
        queue = scheduler._queues["numbers"]
        queue.run_cost, queue.has_run = 1.0, True
        lane.may_run.clear()
        with scheduler.admitted({"numbers": 40}, soon()) as claim:
            work = scheduler.do("numbers", [100] * 40, deadline=soon(), claim=claim)
            large = asyncio.create_task(work)
            await until(lambda: len(queue.waiting) == 39)  # one is in its pass
            # Each later part is due two seconds after that before it.
            assert scheduler.expected_wait("numbers", 1) == pytest.approx(1.0)
            assert scheduler.expected_wait("numbers", 11) == pytest.approx(11.0)
            assert scheduler.expected_wait("numbers", 100) == pytest.approx(40.0)
            with scheduler.admitted({"numbers": 1}, soon()):
                pass
            with pytest.raises(RequestError), scheduler.admitted({"numbers": 11}, soon(60.0)):
                pass
            lane.may_run.set()
            await large
            assert scheduler.pending == 0  # each was over when it had its result
        assert scheduler.pending == 0

    run(scenario, lane, queue_seconds=5.0)


def test_a_request_of_long_inputs_delays_a_small_one_by_its_share_alone() -> None:
    lane = Doubling()
    lane.most = 1e6

    async def scenario(scheduler: Scheduler) -> None:
        queue = scheduler._queues["numbers"]
        queue.run_cost, queue.usual, queue.has_run = 0.01, 1.0, True  # learned on short ones
        lane.may_run.clear()
        with scheduler.admitted({"numbers": 40}, soon()):
            large = asyncio.create_task(scheduler.do("numbers", [100] * 40, deadline=soon()))
            await until(lambda: len(queue.waiting) == 39)
            dues = [piece.due - queue.waiting[0].due for piece in queue.waiting]
            assert dues == pytest.approx([2.0 * place for place in range(39)])
            assert scheduler.expected_wait("numbers") <= 1.0 + 0.01 + 1e-6  # 40 s for all of them
            assert scheduler.expected_wait("numbers", 4000) >= 39.0
            lane.may_run.set()
            await large

    run(scenario, lane, queue_seconds=50.0)


def test_what_is_not_prepared_yet_counts_when_it_is_due() -> None:
    lane = Doubling()
    may_go = threading.Event()
    lane.prepare = lambda raws: may_go.wait(10) and Doubling.prepare(lane, raws)  # type: ignore

    async def scenario(scheduler: Scheduler) -> None:
        queue = scheduler._queues["numbers"]
        queue.run_cost, queue.has_run = 10.0, True
        with scheduler.admitted({"numbers": 40}, soon()):
            large = asyncio.create_task(scheduler.do("numbers", [1] * 40, deadline=soon()))
            await until(lambda: queue.preparing == 40)
            queue.prepare_cost = 4.0  # by two threads
            assert scheduler.expected_wait("numbers") == pytest.approx(10.0 + 2.0)  # of the first
            assert scheduler.expected_wait("numbers", 11) == pytest.approx(110.0 + 22.0)
            queue.run_cost = 0.001
            may_go.set()
            await large
        assert not queue.large

    run(scenario, lane, queue_seconds=1000.0)


def test_costs_are_learned_by_length_with_the_padding() -> None:
    queue = Queue(Doubling())
    queue.learn([10, 30], 0.6)  # 0.6 s for twice 30
    assert (queue.usual, queue.run_cost) == pytest.approx((20.0, 0.2))
    assert queue.seconds(100) == pytest.approx(1.0)
    queue.learn([45], 0.9)  # 0.02 s a unit, 45 long: a fifth of the way from 0.01, from 20
    assert (queue.usual, queue.run_cost) == pytest.approx((25.0, 25 * 0.012))


def test_a_request_that_fails_gives_up_all_its_claims() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        with pytest.raises(Misfit), scheduler.admitted({"numbers": 30}, soon()) as claim:
            await scheduler.do("numbers", [1] * 29 + [-1], deadline=soon(), claim=claim)
        assert scheduler.pending == 0

    run(scenario, Doubling())
