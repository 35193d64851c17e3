"""Load at a rate: requests are sent when they are due, whether or not earlier ones are answered.

Latency counts from the moment a request was due, so that a slow server cannot make its own load
lighter ("coordinated omission", Tene).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks._server import Caller, Reply, quantile


@dataclass
class Load:
    """What came of it.

    Attributes:
        seconds: that it took.
        latencies: of the answers with status 200, in seconds.
        statuses: how many of each; ``broken`` for connections that broke.
        sent: requests.
        wrong: answers that were not those asked for.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    wrong: int = 0

    def figures(self) -> dict[str, Any]:
        """Throughput of good answers, their latency, and the share that was refused."""
        good = len(self.latencies)
        found: dict[str, Any] = {
            "sent": self.sent,
            "good per s": round(good / self.seconds, 1),
            "refused": self.statuses["429"],
            "other": self.sent - good - self.statuses["429"],
            "wrong": self.wrong,
        }
        for name, share in (("p50, ms", 0.5), ("p99, ms", 0.99)):
            found[name] = round(1000 * quantile(self.latencies, share), 1) if good else None
        return found


Send = Callable[[Caller, int], Any]
"""(caller, number of the request) to its reply."""
Check = Callable[[int, Reply], bool]


async def closed(
    url: str, send: Send, *, callers: int, seconds: float, check: Check = lambda n, r: True
) -> Load:
    """As many requests as ``callers`` can send one after the other: what a server can do at most."""
    load, until = Load(), time.perf_counter() + seconds
    numbers = iter(range(1 << 60))

    async def work() -> None:
        caller = Caller(url)
        while time.perf_counter() < until:
            await _one(load, caller, send, next(numbers), time.perf_counter(), check)
        caller.close()

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(callers)))
    load.seconds = time.perf_counter() - start
    return load


async def at_rate(
    url: str,
    send: Send,
    *,
    rate: float,
    seconds: float,
    check: Check = lambda n, r: True,
    most: int = 1000,
) -> Load:
    """``rate`` requests a second, evenly spaced; at most ``most`` on their way at once."""
    load, idle = Load(), [Caller(url) for _ in range(most)]
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float, caller: Caller) -> None:
        try:
            await _one(load, caller, send, number, due, check)
        finally:
            idle.append(caller)

    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        while not idle:
            await asyncio.sleep(0.005)
        task = asyncio.create_task(one(number, due, idle.pop()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.wait(tasks)
    load.seconds = time.perf_counter() - start
    for caller in idle:
        caller.close()
    return load


async def _one(
    load: Load, caller: Caller, send: Send, number: int, due: float, check: Check
) -> None:
    load.sent += 1
    try:
        reply = await send(caller, number)
    except (OSError, asyncio.IncompleteReadError):
        load.statuses["broken"] += 1
        return
    load.statuses[str(reply.status)] += 1
    if reply.status == 200:
        load.latencies.append(time.perf_counter() - due)
        load.wrong += not check(number, reply)


def embedding_sender(path: str, bodies: Sequence[bytes]) -> Send:
    """Posts prepared bodies in turn."""

    async def send(caller: Caller, number: int) -> Reply:
        return await caller.send("POST", path, bodies[number % len(bodies)])

    return send
