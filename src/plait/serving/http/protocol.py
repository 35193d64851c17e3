"""HTTP on one connection, with limits before anything is parsed and an end to all waiting.

`Guarding` stands before uvicorn's protocol and hands it whole heads and plain bodies. Bytes after
a request wait until it is answered. A client that is still sending when its answer closes the
connection gets a moment to read it, which a plain close would take away.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from importlib.util import find_spec
from typing import Any, Final, cast

import orjson

from plait.serving.base.connections import Guard
from plait.serving.base.errors import RequestError
from plait.serving.http.framing import CHUNKED, Chunks, Head, end_of_head, malformed, read_head
from plait.serving.http.origins import SECURITY_HEADERS

LOOKED_AT: Final = "plait.looked_at"  # in a scope: `Guard.shed` was asked about the request
_HEAD, _BODY, _CHUNKS, _ANSWER, _END = "head", "body", "chunks", "answer", "end"
_SENDING = (_BODY, _CHUNKS)
_SLACK = 5.0  # seconds beyond those in which the endpoints want a body
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 1 << 20


def guarded_protocol(guard: Guard, parser: str = "auto") -> Callable[..., asyncio.Protocol]:
    """What makes the protocol of each connection, for ``uvicorn.Config(http=...)``.

    Args:
        guard: of the server.
        parser: ``httptools``, ``h11``, or by default the first that is installed.
    """
    if parser == "auto":
        parser = "httptools" if find_spec("httptools") is not None else "h11"
    if parser == "httptools":
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Inner
    else:
        from uvicorn.protocols.http.h11_impl import H11Protocol as Inner  # type: ignore
    made = type("GuardedProtocol", (Guarding, Inner), {})
    return partial(cast(Callable[..., asyncio.Protocol], made), guard=guard)


class Guarding(asyncio.Protocol):
    """The limits, in front of a protocol of uvicorn's (the next class in line).

    Args:
        guard: that counts the connections.
        arguments: of uvicorn's.
    """

    transport: Any
    flow: Any
    cycle: Any
    client: tuple[str, int] | None
    loop: asyncio.AbstractEventLoop

    def __init__(self, *, guard: Guard, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.guard, self.limits = guard, guard.limits
        self.due = math.inf  # when what is awaited must have come
        self._phase = _HEAD
        self._head = bytearray()
        self._blank = False  # an empty line came before the head
        self._left = 0  # of a body with a length
        self._chunks = Chunks()
        self._kept, self._flooded = b"", False  # what came after the request in hand
        self._lasting: tuple[Any, bool] | None = None  # a cycle, and whether it kept alive
        self._unsent_since = math.inf
        self._lingered = 0
        self._stopping = False

    def connection_made(self, transport: Any) -> None:
        """Counts the connection, or says that there are too many."""
        super().connection_made(_Closing(transport, self))  # type: ignore[arg-type]
        self.due = self.loop.time() + self.limits.head_seconds
        refusal = self.guard.arrived(self, self.client[0] if self.client else "")
        if refusal is not None:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self.guard.gone(self)
        self._phase = _END
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        try:
            self._take(data)
        except RequestError as error:
            self.guard.refused(error.code or "malformed")
            self._refuse(error)
            return
        if self._phase in _SENDING and self._lasting is None:
            # An answer that comes before the body's end closes the connection, and says so.
            self._lasting = self.cycle, self.cycle.keep_alive
            self.cycle.keep_alive = False
            self.guard.busy(self, sending=True)

    def _take(self, data: bytes) -> None:
        while data:
            if self._phase is _HEAD:
                data = self._take_head(data)
            elif self._phase is _BODY:
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
                super().data_received(part)
                if not self._left:
                    self._complete()
            elif self._phase is _CHUNKS:
                part, data = self._chunks.take(data)
                if part:
                    super().data_received(part)
                if self._chunks.done:
                    self._complete()
            else:
                self._keep(data)
                return

    def _take_head(self, data: bytes) -> bytes:
        """What follows the head, once it is complete."""
        if self._head == b"\r":  # of an empty line, perhaps, that came in two pieces
            data, self._head = b"\r" + data, bytearray()
        looked_at = len(self._head)
        if not looked_at:
            if data[:2] == b"\r\n":  # some clients end a body so
                if self._blank:
                    raise malformed("empty lines come instead of a request")
                self._blank = True
                return data[2:]
            if data == b"\r":
                self._head += data
                return b""
            cast(Any, self)._unset_keepalive_if_required()
            self.due = self.loop.time() + self.limits.head_seconds
        else:
            self._head += data
        end = end_of_head(self._head or data, looked_at, self.limits.head_bytes)
        if not end:
            if not looked_at:
                self._head += data
            return b""
        if looked_at:
            data = bytes(self._head)
            self._head = bytearray()
        head = read_head(data[:end], self.limits)
        self._blank = False
        refused = self._shed(head, data, end)
        if refused:
            return data[end + head.length :]
        self.guard.busy(self, sending=False)
        super().data_received(head.data)
        if self._phase is _END:  # the parser found what it could not take
            return b""
        self.cycle.scope[LOOKED_AT] = refused is not None
        self._left, self._chunks = head.length, Chunks()
        self._phase = _CHUNKS if head.length == CHUNKED else _BODY
        self.due = self.loop.time() + self.limits.body_seconds + _SLACK
        if not head.length:
            self._complete()
        return data[end:]

    def _shed(self, head: Head, data: bytes, end: int) -> bool | None:
        """Answers a request that is there in full, if it is to be refused; None: nobody was asked."""
        whole = end + head.length
        if head.method != "POST" or not end <= whole <= len(data) or self._stopping:
            return None
        if not head.is_plain:
            return None
        client = self.client[0] if self.client else ""
        refusal = self.guard.shed(head.target, data[end:whole], client)
        if refusal is None:
            return False
        self.transport.write(answer(refusal, alive=True))
        self.due = self.loop.time() + self.limits.idle_seconds
        self.guard.idle(self)
        return True

    def _complete(self) -> None:
        """The request is there in full."""
        if self._phase is _END:
            return
        self._phase, self.due = _ANSWER, math.inf
        if self._lasting is not None:
            (cycle, alive), self._lasting = self._lasting, None
            if not (cycle.response_started or self._stopping):
                cycle.keep_alive = alive
            self.guard.busy(self, sending=False)

    def _keep(self, data: bytes) -> None:
        """Bytes while nothing is awaited: of the next request, or of a client told to go."""
        if self._phase is _END:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.transport.abort()
        elif self._flooded or len(self._kept) + len(data) > self.limits.head_bytes:
            self._kept, self._flooded = b"", True
            self.cycle.keep_alive = False
            self.flow.pause_reading()
        else:
            self._kept += data

    def on_response_complete(self) -> None:
        """The next request may come."""
        super().on_response_complete()  # type: ignore[misc]
        if self._phase is not _ANSWER or self.transport.is_closing():
            return
        self._phase = _HEAD
        self.due = self.loop.time() + self.limits.idle_seconds
        self.guard.idle(self)
        if self._kept:
            data, self._kept = self._kept, b""
            self.data_received(data)

    def shutdown(self) -> None:
        """The server stops: what is being answered is the last."""
        self._stopping = True
        super().shutdown()  # type: ignore[misc]

    def tend(self, now: float) -> int:
        """Ends what takes too long; bytes that the client has not taken yet."""
        unsent = int(self.transport.get_write_buffer_size())
        if not unsent:
            self._unsent_since = math.inf
        elif self._unsent_since == math.inf:
            self._unsent_since = now
        elif now - self._unsent_since > self.limits.answer_seconds:
            self.leave("slow_reader")
        if now > self.due:
            if self._phase is _HEAD and self._head:
                self.guard.refused("slow_head")
                seconds = self.limits.head_seconds
                self._refuse(
                    RequestError(
                        408,
                        f"the head of the request did not arrive within {seconds:g} s",
                        code="slow_head",
                    )
                )
            else:
                self.leave({_HEAD: "idle", _END: "lingering"}.get(self._phase, "slow_body"))
        return unsent

    def leave(self, reason: str) -> None:
        """Closes the connection at once."""
        self.guard.refused(reason)
        self._phase = _END
        self.transport.abort()

    def _refuse(self, error: RequestError) -> None:
        """Answers outside of the application, and closes."""
        cycle = self.cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            self.transport.abort()
            return
        self.transport.write(answer(error))
        self._flooded = True  # whatever the client sends is not read
        self.transport.close()

    def finish(self, transport: Any) -> None:
        """Closes the connection, after a moment where the client is still sending."""
        still_sending = self._phase in _SENDING or self._flooded
        was_ending, self._phase = self._phase is _END, _END
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application learns that nobody reads its answer
            self.cycle.message_event.set()
        if was_ending or transport.is_closing() or not still_sending:
            transport.close()
            return
        self.guard.busy(self, sending=True)
        self.due = self.loop.time() + _LINGER_SECONDS
        if transport.can_write_eof():
            transport.write_eof()
        transport.resume_reading()


class _Closing:
    """A transport whose `close` is `Guarding.finish`."""

    def __init__(self, transport: Any, guarding: Guarding) -> None:
        self._transport, self._guarding, self._closed = transport, guarding, False
        self.write: Final = transport.write
        self.abort: Final = transport.abort
        self.pause_reading: Final = transport.pause_reading
        self.resume_reading: Final = transport.resume_reading
        self.get_extra_info: Final = transport.get_extra_info
        self.get_write_buffer_size: Final = transport.get_write_buffer_size

    def is_closing(self) -> bool:
        return self._closed or bool(self._transport.is_closing())

    def close(self) -> None:
        self._closed = True
        self._guarding.finish(self._transport)


def answer(error: RequestError, *, alive: bool = False) -> bytes:
    """A refusal as bytes of HTTP, after which the connection is closed, or stays ``alive``."""
    body = orjson.dumps(error.body())
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: keep-alive" if alive else b"connection: close",
        *(name + b": " + value for name, value in SECURITY_HEADERS),
    ]
    for name, value in error.headers.items():
        if name.lower() != "connection":
            lines.append(f"{name.lower()}: {value}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
