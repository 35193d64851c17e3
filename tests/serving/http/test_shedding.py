"""Refusals that cost nearly nothing: before the body is read, and by the lane that it needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from plait.serving.base.settings import Settings
from plait.serving.http.protocol import LOOKED_AT
from plait.serving.http.shedding import Shed, Shedding
from plait.serving.process.worker import build_service
from plait.serving.service.service import Service

PICTURE = "data:image/png;base64,AAAA"


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[Service]:
    made = build_service(settings)
    yield made
    asyncio.run(made.stop())


@contextmanager
def full(service: Service, *lanes: str) -> Iterator[None]:
    """These lanes have more to do than the queue allows."""
    queues = [service.scheduler._queues[lane] for lane in lanes]
    for queue in queues:
        queue.pending, queue.run_cost = 10, service.limits.queue_seconds
    try:
        yield
    finally:
        for queue in queues:
            queue.pending, queue.run_cost = 0, 0.0


def asked(
    service: Service,
    value: Any,
    *,
    path: str = "/v1/embeddings",
    method: str = "POST",
    parts: int = 1,
    body: bytes | None = None,
) -> tuple[int, int, bytes]:
    """(status, messages taken before the inner application, body that it was given)."""
    whole = json.dumps(value).encode() if body is None else body
    cut = -(-len(whole) // parts)
    pieces = [whole[start : start + cut] for start in range(0, len(whole), cut)]
    taken, seen, status = 0, 0, 0
    given = b""

    async def receive() -> Any:
        nonlocal taken
        taken += 1
        last = taken == len(pieces)
        return {"type": "http.request", "body": pieces[taken - 1], "more_body": not last}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        nonlocal seen, given
        seen = taken
        while True:
            message = await receive()
            given += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    scope = {"type": "http", "method": method, "path": path, "headers": [], "state": {}}
    asyncio.run(Shed(inner, service=service)(scope, receive, send))
    if status == 200:
        assert given == whole
        return status, seen, given
    assert scope["state"] == {"code": "overloaded"}
    return status, taken, given


def test_nothing_is_looked_at_while_there_is_room(service: Service) -> None:
    assert asked(service, {"input": "red"}, parts=3)[:2] == (200, 0)


def test_when_every_lane_is_full_the_body_is_not_read(service: Service) -> None:
    with full(service, *service.lanes):
        for path in ("/v1/embeddings", "/v1/ask", "/v1/towers/image"):
            assert asked(service, {"input": "red"}, path=path) == (429, 0, b"")
        assert asked(service, {"input": "red"}, path="/page/gradio")[0] == 200
        assert asked(service, {"input": "red"}, path="/readyz", method="GET")[0] == 200


def test_a_full_lane_refuses_what_needs_it_and_nothing_else(service: Service) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    pictures = [PICTURE, ["red", PICTURE], [part]]
    with full(service, "tiny/image"):
        for value in pictures:
            assert asked(service, {"input": value})[:2] == (429, 1), value
        escaped = json.dumps({"input": PICTURE}).replace("/", "\\/").encode()
        assert asked(service, None, body=escaped)[0] == 429
        assert asked(service, {"input": ["red", "data"]})[0] == 200
        assert asked(service, {"query": PICTURE}, path="/v1/search")[0] == 429
    with full(service, "tiny/text"):
        assert asked(service, {"input": ["red", "data"]})[0] == 429
        for value in pictures:  # the scheduler knows better whether it also needs the texts' lane
            assert asked(service, {"input": value})[0] == 200


def test_when_in_doubt_it_lets_pass(service: Service) -> None:
    with full(service, "tiny/image", "tiny/text"):
        assert asked(service, {"input": PICTURE}, parts=3)[:2] == (200, 1)
        assert asked(service, {"images": [PICTURE]}, path="/v1/classify")[:2] == (200, 0)
        form = b"--x\r\nContent-Disposition: form-data; name=input\r\n\r\nred\r\n--x--"
        assert asked(service, None, body=form)[0] == 200


def test_too_many_requests_in_hand_are_refused_before_their_bodies(service: Service) -> None:
    service.intake.requests = service.limits.requests
    try:
        assert asked(service, {"input": "red"}) == (429, 0, b"")
    finally:
        service.intake.requests = 0
    assert asked(service, {"input": "red"})[0] == 200


def test_a_first_pass_told_what_an_input_costs(settings: Settings) -> None:
    service = build_service(settings)

    async def scenario() -> None:
        await service.start()
        assert all(queue.run_cost > 0 for queue in service.scheduler._queues.values())
        await service.stop()

    asyncio.run(scenario())


def test_the_beginning_of_a_long_body_tells(service: Service) -> None:
    with full(service, "tiny/text"):
        long = "word " * 20_000
        assert asked(service, {"input": long}, parts=4)[:2] == (429, 1)
        assert asked(service, {"input": PICTURE + long}, parts=4)[0] == 200
        assert asked(service, {"input": "word " * 100}, parts=4)[0] == 200  # too little to tell


def test_a_refusal_by_the_connection_is_counted(service: Service) -> None:
    shedding = Shedding(service)
    red, shown = json.dumps({"input": "red"}).encode(), json.dumps({"input": PICTURE}).encode()

    def counted() -> float:
        value = service.metrics.registry.get_sample_value(
            "plait_requests_total", {"path": "/v1/embeddings", "status": "429"}
        )
        return value or 0.0

    before = counted()
    assert shedding.refusal("/v1/embeddings", red, "a") is None
    with full(service, "tiny/text"):
        refused = shedding.refusal("/v1/embeddings?a=b", red, "a")
        assert refused is not None
        assert (refused.status, refused.headers["Retry-After"]) == (429, "13")
        assert len(refused.headers["X-Request-Id"]) == 32
        assert shedding.refusal("/v1/embeddings", shown, "a") is None
        assert shedding.refusal("/page/x", red, "a") is None
    assert counted() == before + 1


def test_what_the_connection_looked_at_is_not_looked_at_again(service: Service) -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": []}
    with full(service, *service.lanes):
        asyncio.run(Shed(inner, service=service)({**scope, LOOKED_AT: True}, None, None))  # type: ignore
    assert seen == ["/v1/embeddings"]
