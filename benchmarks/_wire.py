"""The cheapest client that still checks answers, for load on the machine that also serves.

Whole requests are made beforehand, a connection is an asyncio protocol without streams, and loops
run on uvloop where it is installed: a request costs the client some 60 microseconds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from benchmarks._server import head, quantile

LEAST_COSINE = 0.9999  # between rows of one input, alone and among others
PATIENCE = 60.0  # seconds that a client waits for an answer
_TICK = 0.004  # seconds between two looks at what is due

Check = Callable[[int, bytes], bool]
"""(number of the valid request, body of its 200) to whether it is right."""
Misdeed = Callable[[], Awaitable[int | None]]
"""A hostile request: the status that it was answered with, or None."""


class Broken(Exception):
    """The connection ended before an answer."""


class Wire(asyncio.Protocol):
    """A connection that is kept alive, with one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.usable = False
        self._data = bytearray()
        self._size = 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        self.transport, self.usable = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Broken())

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """The status and the body of the answer."""
        assert self.transport is not None
        self._data.clear()
        self._size = 0
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._data += data
        if not self._size:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = bytes(self._data[:end]).lower()
            place = lines.find(b"\r\ncontent-length:")
            length = lines[place + 17 :].partition(b"\r\n")[0] if place >= 0 else b"0"
            self._size = end + 4 + int(length)
            self._begin = end + 4
            self._closes = b"\r\nconnection: close" in lines
        if len(self._data) >= self._size and self._answer is not None:
            status, body = int(self._data[9:12]), bytes(self._data[self._begin : self._size])
            if self._closes:
                self.close()
            if not self._answer.done():
                self._answer.set_result((status, body))

    def close(self) -> None:
        """Closes the connection."""
        self.usable = False
        if self.transport is not None:
            self.transport.close()


class Wires:
    """Connections to a server, opened as they are needed.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self._idle: list[Wire] = []

    async def ask(self, request: bytes, *, anew: bool = False) -> tuple[int, bytes]:
        """Asks on a connection that is idle, or on a new one (always, if ``anew``).

        Raises:
            Broken, OSError, TimeoutError: there was no answer.
        """
        wire = None
        while self._idle and wire is None and not anew:
            wire = self._idle.pop()
            wire = wire if wire.usable else None
        async with asyncio.timeout(PATIENCE):
            if wire is None:
                loop = asyncio.get_running_loop()
                _, wire = await loop.create_connection(Wire, self.host, self.port)
            try:
                answer = await wire.ask(request)
            except BaseException:
                wire.close()
                raise
        if wire.usable:
            self._idle.append(wire)
        return answer

    def close(self) -> None:
        """Closes all that are idle."""
        for wire in self._idle:
            wire.close()
        self._idle.clear()


@dataclass
class Tally:
    """What came of valid and of hostile requests.

    Attributes:
        seconds: from the first request to the last answer.
        good: (when it was due, latency) of each valid request that was answered with 200.
        statuses: of valid requests; ``lost``: no answer, neither at first nor after one retry.
        hostile: statuses of hostile ones; ``left``: without an answer.
        wrong: answers that were not those asked for.
        retried: valid requests that needed their retry.
    """

    seconds: float = 0.0
    good: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    hostile: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    retried: int = 0

    @property
    def sent(self) -> int:
        """Valid requests."""
        return sum(self.statuses.values())

    @property
    def goodput(self) -> float:
        """Valid requests answered with 200, a second."""
        return len(self.good) / self.seconds

    def latency(self, share: float) -> float | None:
        """A quantile of the latencies of good answers, in seconds."""
        return quantile([one for _, one in self.good], share) if self.good else None

    def figures(self) -> dict[str, Any]:
        """For a table."""
        found = {
            "valid": self.sent,
            "good per s": round(self.goodput, 1),
            "refused": self.statuses["429"],
            "lost": self.statuses["lost"],
            "other": self.sent - sum(self.statuses[one] for one in ("200", "429", "lost")),
            "wrong": self.wrong,
            "retried": self.retried,
            "hostile": sum(self.hostile.values()),
        }
        for name, share in (("p50, s", 0.5), ("p99, s", 0.99)):
            value = self.latency(share)
            found[name] = None if value is None else round(value, 2)
        return found


async def _valid(
    wires: Wires, tally: Tally, number: int, request: bytes, due: float, check: Check
) -> None:
    for attempt in range(2):
        tally.retried += attempt
        try:
            status, body = await wires.ask(request, anew=attempt > 0)
        except (Broken, OSError):
            continue
        tally.statuses[str(status)] += 1
        if status == 200:
            tally.good.append((due, time.perf_counter() - due))
            tally.wrong += not check(number, body)
        return
    tally.statuses["lost"] += 1


async def _hostile(tally: Tally, misdeed: Misdeed) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            status = await misdeed()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        status = None
    tally.hostile["left" if status is None else str(status)] += 1


async def capacity(
    url: str,
    requests: Sequence[bytes],
    *,
    seconds: float,
    callers: int = 32,
    check: Check = lambda number, body: True,
) -> Tally:
    """What a server answers when each of ``callers`` asks again as soon as it has its answer."""
    wires, tally = Wires(url), Tally()
    start = time.perf_counter()
    numbers = iter(range(1 << 60))

    async def work() -> None:
        while (due := time.perf_counter()) < start + seconds:
            number = next(numbers)
            await _valid(wires, tally, number, requests[number % len(requests)], due, check)

    await asyncio.gather(*(work() for _ in range(callers)))
    tally.seconds = time.perf_counter() - start
    wires.close()
    return tally


async def offered(
    url: str,
    plan: Sequence[tuple[int, bytes] | Misdeed],
    *,
    rate: float,
    check: Check = lambda number, body: True,
) -> Tally:
    """``plan`` at ``rate`` requests a second, whether or not earlier ones are answered.

    Args:
        url: of the server.
        plan: valid requests with their numbers, and misdeeds, in order.
        rate: of all together, evenly spaced.
        check: of the answers to valid requests.
    """
    wires, tally = Wires(url), Tally()
    waiting, tasks = deque(enumerate(plan)), set[asyncio.Task[None]]()
    start = time.perf_counter()
    while waiting:
        now = time.perf_counter()
        while waiting and (due := start + waiting[0][0] / rate) <= now:
            _, one = waiting.popleft()
            deed = (
                _valid(wires, tally, one[0], one[1], due, check)
                if isinstance(one, tuple)
                else _hostile(tally, one)
            )
            task = asyncio.create_task(deed)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(_TICK)
    offering = time.perf_counter() - start
    if tasks:
        await asyncio.wait(tasks)
    # Answers after the last request was sent count, their seconds do too, to the last good one.
    last = max((due + latency for due, latency in tally.good), default=0.0)
    tally.seconds = max(offering, last - start)
    wires.close()
    return tally


class Rows:
    """The rows of valid requests, each asked for alone.

    Args:
        rows: (E,) of each.
    """

    def __init__(self, rows: Sequence[np.ndarray]) -> None:
        self.rows = rows

    @classmethod
    async def alone(cls, url: str, requests: Sequence[bytes]) -> Rows:
        """Asks for them one after the other."""
        wires, rows = Wires(url), []
        for request in requests:
            status, body = await wires.ask(request)
            assert status == 200, body[:500]
            rows.append(_row(body))
        wires.close()
        return cls(rows)

    def right(self, number: int, body: bytes) -> bool:
        """Whether an answer holds the row of its input."""
        return float(_row(body) @ self.rows[number % len(self.rows)]) >= LEAST_COSINE


def _row(body: bytes) -> np.ndarray:
    _, _, rest = body.partition(b'"embedding":"')  # base64 has no quotes: no parser is needed
    return np.frombuffer(base64.b64decode(rest.partition(b'"')[0]), "<f4")


def whole(path: str, url: str, value: Any) -> bytes:
    """A request that posts JSON, as it goes over the wire."""
    body = json.dumps(value).encode()
    return head("POST", path, url, len(body), {}) + body


def run_cheaply(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs it on uvloop where that is installed."""
    factory = None
    if find_spec("uvloop") is not None:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
