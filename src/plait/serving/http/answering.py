"""What every endpoint with a body does: read it within limits, mind the deadline and the client."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response

from plait.core.errors import shown
from plait.serving.base.errors import CLIENT_GONE, RequestError, late
from plait.serving.base.settings import Limits
from plait.serving.service.body import Body, client_in, media_type, parse_json, read_body
from plait.serving.service.service import Service

Result = TypeVar("Result")

_JSON = "application/json"
DEADLINE_HEADER = "X-Deadline"


async def answered(
    request: Request, work: Callable[[Service, Body, float], Awaitable[dict[str, Any]]]
) -> Response:
    """Reads a body within the limits and answers with what ``work`` makes of it.

    ``work`` gets the service, the body and the deadline, and is cancelled when the client leaves.
    """
    service: Service = request.app.state.service
    deadline = time.monotonic() + wanted_seconds(request, service.limits)
    with service.intake.admitted(client_in(request)) as hold:
        body = await read_body(request, hold)
        result = await unless_gone(request, within(work(service, body, deadline), deadline))
        return Response(orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY), media_type=_JSON)


async def within(work: Awaitable[Result], deadline: float) -> Result:
    """The result of ``work``, which is cancelled at the deadline.

    Raises:
        RequestError: 504.
    """
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())) as clock:
            return await work
    except TimeoutError:
        if clock.expired():
            raise late() from None
        raise


def wanted_seconds(request: Request, limits: Limits) -> float:
    """The request's own deadline where it is shorter than the server's.

    Raises:
        RequestError: 400 when the header is no number of seconds.
    """
    given = request.headers.get(DEADLINE_HEADER)
    if given is None:
        return limits.deadline
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise RequestError(
            400, f"{DEADLINE_HEADER} is no positive number of seconds", param=DEADLINE_HEADER
        )
    return min(seconds, limits.deadline)


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """The result of ``work``, which is cancelled when the client leaves.

    Raises:
        RequestError: 499; nobody will read it, but logs and metrics do.
    """
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError(CLIENT_GONE, "the client left before its answer was ready")
        return task.result()
    finally:
        watch.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def json_of(request: Request, body: Body) -> Any:
    """The body as JSON. Raises RequestError: 415 for another type, 400 for bad JSON."""
    if media_type(request) != _JSON:
        raise RequestError(
            415,
            f"the Content-Type is {shown(media_type(request))}: send {_JSON}",
            code="media_type",
        )
    return parse_json(body.take())
