"""Connections to foreign servers that bound what comes: a line, a body, and the time of ending."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp.types as types
import openai
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from plait.core.errors import UserError

MOST_BYTES = 64 << 20  # of one message; a result may hold several pictures
_GRACE = 2.0  # seconds that a server has to end by itself, and again after SIGTERM


class TooLarge(UserError):
    """A message above the limit."""


def http_client(most_bytes: int = MOST_BYTES, **settings: Any) -> Any:
    """A client of the HTTP library that openai uses: bodies are bounded, redirects not followed."""
    kind = next(
        one for one in openai.DefaultAsyncHttpxClient.__mro__ if one.__name__ == "AsyncClient"
    )
    library = importlib.import_module(kind.__module__.partition(".")[0])

    class Bounded(library.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            total = 0
            async for block in self._stream:
                total += len(block)
                if total > most_bytes:
                    raise TooLarge(f"the reply has more than {most_bytes:,} bytes")
                yield block

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def check(response: Any) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise TooLarge("the reply is compressed, which was not asked for")
        response.stream = Bounded(response.stream)

    settings.setdefault("timeout", library.Timeout(30.0, read=300.0))
    return library.AsyncClient(
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [check]},
        **settings,
    )


@asynccontextmanager
async def over_http(url: str) -> AsyncIterator[Any]:
    """The two streams of a session with a server at a URL."""
    async with http_client() as client, streamable_http_client(url, http_client=client) as streams:
        yield streams


@asynccontextmanager
async def over_stdio(command: Sequence[str]) -> AsyncIterator[Any]:
    """The two streams of a session with a command that talks on its stdin and stdout.

    It gets the environment's harmless variables only, and is killed with its children when it does
    not end by itself.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=get_default_environment(),
        limit=MOST_BYTES,
        start_new_session=True,
    )
    into, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, out_of = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(process, into)),
        asyncio.create_task(_write(process, out_of, into)),
    ]
    try:
        yield incoming, outgoing
    finally:
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*tasks, return_exceptions=True)
            await _ended(process)
        for stream in (into, incoming, outgoing, out_of):
            stream.close()


async def _read(process: asyncio.subprocess.Process, into: Any) -> None:
    assert process.stdout is not None
    async with into:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # the limit: what follows belongs to no message
                await into.send(TooLarge(f"a message has more than {MOST_BYTES:,} bytes"))
                return
            if not line:
                return
            try:
                message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError as error:
                await into.send(error)
            else:
                await into.send(SessionMessage(message))


async def _write(process: asyncio.subprocess.Process, out_of: Any, into: Any) -> None:
    assert process.stdin is not None
    try:
        async with out_of:
            async for one in out_of:
                text = one.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
    except OSError:
        await into.aclose()  # the session sees an end rather than a request without an answer


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Closes its stdin, waits, then ends it and its children."""
    assert process.stdin is not None
    process.stdin.close()
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await _gone(process)
                break
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await _gone(process)
    process._transport.close()  # type: ignore[attr-defined]  # a grandchild may hold the pipe


async def _gone(process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:  # `wait` would also wait for the pipe, which children inherit
        await asyncio.sleep(0.01)
