"""Bodies on their way: what counts against the limits is what came, and for each client its share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Request

from plait.serving.base.errors import RequestError
from plait.serving.base.settings import Limits
from plait.serving.service import body
from plait.serving.service.body import Intake, client_in, read_body

LIMITS = Limits(body_bytes=1000, inflight_bytes=4000, body_seconds=0.4, body_rate=100, requests=3)


class Sender:
    """A client whose body comes when told.

    Args:
        declared: the Content-Length.
        address: of the client.
    """

    def __init__(self, declared: int | None = None, address: str = "10.0.0.1") -> None:
        headers = [] if declared is None else [(b"content-length", str(declared).encode())]
        scope = {"type": "http", "headers": headers, "client": (address, 1)}
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.request = Request(scope, self.messages.get)

    def send(self, part: bytes, *, more: bool = True) -> None:
        self.messages.put_nowait({"type": "http.request", "body": part, "more_body": more})

    async def read(self, intake: Intake, then: Callable[[], Any] = lambda: None) -> bytes:
        with intake.admitted(client_in(self.request)) as hold:
            found = bytes((await read_body(self.request, hold)).take())
            then()
            return found


def test_promised_bytes_hold_nothing_and_keep_nobody_out() -> None:
    async def scenario() -> None:
        intake = Intake(LIMITS)
        silent = [Sender(1000) for _ in range(8)]
        tasks = [asyncio.create_task(one.read(intake)) for one in silent]
        await asyncio.sleep(0.01)
        assert (intake.bytes, intake.requests) == (0, 0)
        held: list[int] = []
        for _ in range(5):
            valid = Sender(900)
            valid.send(b"x" * 900, more=False)
            assert len(await valid.read(intake, lambda: held.append(intake.bytes))) == 900
        assert held == [900] * 5
        silent[0].send(b"x" * 10)
        await asyncio.sleep(0.01)
        assert intake.bytes == 10
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(one, "status", one) for one in found] == [408] * 8
        assert (intake.bytes, intake.requests, dict(intake.shares)) == (0, 0, {})

    asyncio.run(scenario())


def test_a_body_that_is_declared_too_large_is_refused_at_once() -> None:
    async def scenario() -> None:
        for sender in (Sender(1001), Sender(10**14)):
            with pytest.raises(RequestError) as caught:
                await sender.read(Intake(LIMITS))
            assert caught.value.status == 413
        liar = Sender()
        liar.send(b"x" * 1001)
        with pytest.raises(RequestError) as caught:
            await liar.read(Intake(LIMITS))
        assert caught.value.status == 413

    asyncio.run(scenario())


def test_a_body_must_come_at_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_FIRST", 0.1)

    async def drip(part: bytes, pause: float, limits: Limits) -> tuple[float, Any]:
        intake, sender = Intake(limits), Sender()
        task = asyncio.create_task(sender.read(intake))
        began = asyncio.get_running_loop().time()
        for _ in range(20):
            sender.send(part)
            await asyncio.sleep(pause)
            if task.done():
                break
        else:
            sender.send(b"", more=False)
        found = (await asyncio.gather(task, return_exceptions=True))[0]
        return asyncio.get_running_loop().time() - began, found

    async def scenario() -> None:
        seconds, slow = await drip(b"x", 0.02, Limits(body_rate=100))
        assert (slow.status, seconds < 0.35) == (408, True)
        _, steady = await drip(b"x" * 10, 0.02, Limits(body_rate=100))
        assert steady == b"x" * 200
        seconds, long = await drip(b"x" * 10, 0.05, LIMITS)  # the whole time counts too
        assert (long.status, seconds < 0.7) == (408, True)

    asyncio.run(scenario())


def test_one_client_has_a_share_of_the_bytes() -> None:
    async def scenario() -> None:
        intake = Intake(LIMITS)
        greedy = [Sender() for _ in range(3)]
        tasks = [asyncio.create_task(one.read(intake)) for one in greedy]
        for one in greedy:
            one.send(b"x" * 900)
            await asyncio.sleep(0.01)
        assert intake.bytes == 1800  # the third would make 2,700 of 4,000
        other = Sender(address="10.0.0.2")
        other.send(b"x" * 900, more=False)
        assert len(await other.read(intake)) == 900
        for one in greedy:
            one.send(b"", more=False)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [
            getattr(one, "status", len(one) if isinstance(one, bytes) else one) for one in found
        ] == [900, 900, 429]
        assert (intake.bytes, dict(intake.shares)) == (0, {})

    asyncio.run(scenario())


def test_bodies_that_end_together_do_not_pass_the_limit_of_requests() -> None:
    async def scenario() -> None:
        intake = Intake(LIMITS)
        senders = [Sender(address=f"10.0.0.{n}") for n in range(5)]
        most = 0

        async def whole(sender: Sender) -> None:
            nonlocal most
            with intake.admitted(client_in(sender.request)) as hold:
                await read_body(sender.request, hold)
                most = max(most, intake.requests)
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(whole(sender)) for sender in senders]
        await asyncio.sleep(0.01)
        for sender in senders:
            sender.send(b"x", more=False)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(getattr(one, "status", 200) for one in found) == [200, 200, 200, 429, 429]
        assert (most, intake.requests) == (3, 0)

    asyncio.run(scenario())
