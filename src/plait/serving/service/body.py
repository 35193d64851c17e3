"""Request bodies: read within limits, parsed strictly, checked against their schema."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from plait.core.errors import cut
from plait.serving.base.connections import client_of
from plait.serving.base.errors import CLIENT_GONE, RequestError, overloaded
from plait.serving.base.schemas import NO_TOKENS
from plait.serving.base.settings import Limits

Schema = TypeVar("Schema", bound=BaseModel)

_FIRST = 5.0  # seconds of a body before its rate counts
_PLACE = 100  # characters of a field's name, and of what is wrong with it: it may quote a value
_TICK = 0.05  # seconds between two looks at the clock
_SMOOTHING = 0.3  # weight of the latest look
_MANY = 16  # requests in hand below which lateness has other reasons than requests
_TURNS = 20  # of the event loop that a request takes at most, from its connection to its answer
_FORM_FIELD_BYTES = 1 << 20
_FORM_FIELDS = 64
_MARKS = 500_000  # commas and brackets of a body: what bounds the memory of the parsed value
_VALUES = 20_000  # of a request: what bounds the errors that a schema can find in it


class Intake:
    """Counts the requests that are being answered and their bytes, and refuses what is too much.

    Args:
        limits: see there.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests, self.bytes = 0, 0
        self.shares: Counter[str] = Counter()  # of the bytes, by client
        self.lag = 0.0  # seconds by which the event loop is late, see `keep_time`

    async def keep_time(self) -> None:
        """Measures, until cancelled, how late the event loop is."""
        while True:
            due = time.monotonic() + _TICK
            await asyncio.sleep(_TICK)
            late = time.monotonic() - due
            self.lag += _SMOOTHING * (late - self.lag)  # one long turn is no overload

    @contextmanager
    def admitted(self, client: str = "") -> Iterator[Hold]:
        """One request of a client, from before its body is read until its answer is ready.

        Raises:
            RequestError: 429 when too many are being answered.
        """
        if self.requests >= self.limits.requests:
            raise overloaded(1.0, f"{self.requests} requests are being answered")
        if self.requests >= _MANY and self.lag * _TURNS > self.limits.queue_seconds:
            raise overloaded(1.0, "more requests come than can be read")
        self.requests += 1
        try:
            with self.holding(client) as hold:
                yield hold
        finally:
            self.requests -= 1

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """An admitted request whose body is still to come: it is no work yet.

        Raises:
            RequestError: 429 when meanwhile too many others are being answered.
        """
        self.requests -= 1
        try:
            yield
        finally:
            self.requests += 1
        if self.requests > self.limits.requests:
            raise overloaded(1.0, f"{self.requests - 1} requests are being answered")

    @contextmanager
    def holding(self, client: str = "") -> Iterator[Hold]:
        """Bytes that count against the limits until its end."""
        hold = Hold(self, client)
        try:
            yield hold
        finally:
            self.bytes -= hold.bytes
            self.shares[client] -= hold.bytes
            if not self.shares[client]:
                del self.shares[client]


class Hold:
    """The bytes of one request that count against the limits: those that came, not those promised."""

    def __init__(self, intake: Intake, client: str = "") -> None:
        self.intake, self.client, self.bytes = intake, client, 0

    def check(self, total: int) -> None:
        """Raises RequestError: 413 when a request of so many bytes is too large."""
        most = self.intake.limits.body_bytes
        if total > most:
            raise RequestError(
                413,
                f"the request has more than {most:,} bytes: send less at a time",
                code="request_too_large",
                headers={"Connection": "close"},
            )

    def take(self, total: int) -> None:
        """Makes the request's share ``total`` bytes, if it was smaller.

        Raises:
            RequestError: 413 when the request is too large, 429 when all together are, or all of
                this client.
        """
        intake, more = self.intake, total - self.bytes
        if more <= 0:
            return
        self.check(total)
        most, client = intake.limits.inflight_bytes, self.client
        if intake.bytes + more > most and intake.bytes > self.bytes:
            raise overloaded(1.0, "the requests that are being answered are too large together")
        if client:
            held = intake.shares[client]
            if held + more > intake.limits.client_share * most and held > self.bytes:
                raise overloaded(1.0, "this client's requests are too large together")
        intake.bytes += more
        intake.shares[client] += more
        self.bytes = total


def client_in(request: Request) -> str:
    """Whose request it is, for limits of one client; empty where the server is not told."""
    return client_of(request.client.host) if request.client else ""


class Body:
    """The bytes of a request, which nobody keeps once they were taken: what is parsed is enough.

    Args:
        data: all of them.
    """

    def __init__(self, data: bytearray) -> None:
        self._data = data

    def take(self) -> bytearray:
        """All bytes, the first time."""
        data, self._data = self._data, bytearray()
        return data


async def read_body(request: Request, hold: Hold) -> Body:
    """The whole body of an admitted request.

    Raises:
        RequestError: 413, 429 (see `Hold.take`, `Intake.awaiting`), 408 when it is too slow, 499
            when the client leaves before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal():
        hold.check(int(declared))
    limits = hold.intake.limits
    data = bytearray()  # grows in place: parts that are joined at the end take twice the room
    began = asyncio.get_running_loop().time()
    try:
        with hold.intake.awaiting():
            async with asyncio.timeout_at(began + min(limits.body_seconds, _FIRST)) as clock:
                async for part in request.stream():
                    hold.take(len(data) + len(part))
                    data += part
                    seconds = min(limits.body_seconds, _FIRST + len(data) / limits.body_rate)
                    clock.reschedule(began + seconds)
    except TimeoutError:
        raise RequestError(
            408,
            f"the body did not arrive within {limits.body_seconds:g} s, or came at less than "
            f"{limits.body_rate:,} bytes a second",
            code="slow_body",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise RequestError(CLIENT_GONE, "the client left before its request ended") from None
    return Body(data)


def media_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_json(data: bytes | bytearray) -> Any:
    """Strict JSON (RFC 8259): no NaN, no bad UTF-8, no bottomless nesting, no millions of values.

    Raises:
        RequestError: 400, with the place.
    """
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > _MARKS:
        raise _too_many("the body has too many values")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            400, f"the body is no valid JSON: {error}", code="invalid_json"
        ) from error
    if _has_more_than(value, _VALUES):
        raise _too_many(f"the body has more than {_VALUES:,} values: send several requests")
    return value


def _too_many(problem: str) -> RequestError:
    return RequestError(400, f"{problem}; {NO_TOKENS}", code="too_many_values")


def _has_more_than(value: Any, most: int) -> bool:
    """Whether a parsed body has more lists, objects and leaves than that."""
    stack, count = [value], 0
    while stack:
        inner = stack.pop()
        if isinstance(inner, list | dict):
            count += len(inner)
            if count > most:
                return True
            stack.extend(inner.values() if isinstance(inner, dict) else inner)
    return False


def checked(schema: type[Schema], value: Any) -> Schema:
    """``value`` as the schema's object.

    Raises:
        RequestError: 400 naming the first field at fault.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        # Where a value can be of several kinds, the one that fits best was followed furthest.
        first = max(found, key=lambda one: len(one["loc"]))
        others = {_place(one["loc"]) for one in found} - {_place(first["loc"])}
        place = _place(first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        told = NO_TOKENS if first["type"] == "token_ids" else cut(first["msg"], _PLACE)
        raise RequestError(
            400,
            f"{cut(place, _PLACE) or 'the body'}: {told}{more}",
            param=place or None,
            code="invalid_request",
        ) from error


def _place(path: tuple[int | str, ...]) -> str:
    """``input[3].text`` of a path, without the names of kinds that pydantic puts between."""
    place, is_tag = "", False
    for step in path:
        if isinstance(step, int):
            place += f"[{step}]"
        elif not is_tag and step.isidentifier() and step not in ("str", "list", "dict", "bool"):
            place += f".{step}" if place else step
        is_tag = isinstance(step, str) and step.startswith("tagged-union[")
    return place


async def parse_form(request: Request, body: Body) -> list[tuple[str, str | bytes]]:
    """The fields of a form and the contents of its files, in order.

    Raises:
        RequestError: 400 for a form that is damaged or has too many fields.
    """
    data = body.take()

    async def stream() -> Any:
        yield bytes(data)

    parser = MultiPartParser(
        request.headers,
        stream(),
        max_files=request.app.state.service.limits.pictures,
        max_fields=_FORM_FIELDS,
        max_part_size=_FORM_FIELD_BYTES,
    )
    # Contents are in memory anyway, within the limits of a body: no temporary files.
    parser.spool_max_size = len(data) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        message = getattr(error, "message", str(error))
        raise RequestError(
            400, f"the form cannot be read: {message}", code="invalid_form"
        ) from error
    fields: list[tuple[str, str | bytes]] = []
    for name, value in form.multi_items():
        fields.append((name, await value.read() if isinstance(value, UploadFile) else value))
    await form.close()
    return fields
