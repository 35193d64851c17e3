"""Targets that take what a client sends: connections, and bodies of requests."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from types import SimpleNamespace
from typing import Any

import orjson
import uvicorn
from starlette.datastructures import Headers
from tests.fuzz.kinds import MIB, Target
from tests.fuzz.seeds import picture
from uvicorn.server import ServerState

from plait.serving.base import schemas
from plait.serving.base.connections import Guard
from plait.serving.base.errors import RequestError
from plait.serving.base.inputs import image_input, prompt_inputs, text_input
from plait.serving.base.settings import Limits
from plait.serving.http import routes
from plait.serving.http.protocol import guarded_protocol
from plait.serving.service.body import Body, checked, parse_json

LIMITS = Limits(
    head_bytes=2048, headers=20, target_bytes=200, characters=200, inputs=20, pictures=5
)
_LOOP = asyncio.new_event_loop()
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ")


class _Wire:
    """A transport to nobody, which keeps what is written."""

    def __init__(self) -> None:
        self.sent, self.closed = bytearray(), False

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after the end"
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        pass


class _Site:
    """An application that reads a request and answers, behind the guarded protocol."""

    def __init__(self) -> None:
        self.config = uvicorn.Config(
            self.app,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
        )
        self.config.load()
        self.guard = Guard(LIMITS, most=10, tick=1e6)
        self.make = guarded_protocol(self.guard)
        self.bodies: list[bytes] = []
        self.faults: list[BaseException] = []
        _LOOP.set_exception_handler(self._failed)
        log = logging.getLogger("uvicorn.error")
        log.addFilter(self._logged)
        log.propagate = False

    def _logged(self, record: logging.LogRecord) -> bool:
        """uvicorn logs what an application raises, and goes on."""
        if record.levelno >= logging.ERROR:
            self.faults.append(RuntimeError(record.getMessage()))
        return False

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.faults.append(context.get("exception") or RuntimeError(context["message"]))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            assert scope["type"] == "http", scope["type"]
            names = [name for name, _ in scope["headers"]]
            assert names.count(b"host") <= 1 and names.count(b"content-length") <= 1
            body = b""
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
            self.bodies.append(body)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
        except Exception as error:
            self.faults.append(error)

    async def serve(self, pieces: list[bytes]) -> bytes:
        """Feeds a connection; what came back."""
        state, wire = ServerState(), _Wire()
        protocol = self.make(config=self.config, server_state=state, app_state={}, _loop=_LOOP)
        self.bodies, self.faults = [], []
        protocol.connection_made(wire)  # type: ignore[arg-type]
        for piece in pieces:
            if wire.closed:
                break
            protocol.data_received(piece)
            for _ in range(4):
                await asyncio.sleep(0)
        for _ in range(4):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5)
        assert not state.tasks, "a request without an end"
        assert len(self.guard) == 0, "a connection is counted after its end"
        if self.faults:
            raise self.faults[0]
        return bytes(wire.sent)


_SITE: list[_Site] = []


def connection(data: bytes) -> None:
    """Bytes of one connection, whole, then cut in pieces: both must give the same requests."""
    if not _SITE:
        asyncio.set_event_loop(_LOOP)
        _SITE.append(_Site())
    site, size = _SITE[0], data[0] % 37 + 1 if data else 1
    data = data[1:]
    whole = _LOOP.run_until_complete(site.serve([data]))
    bodies = site.bodies
    size = max(size, len(data) // 200)
    pieces = [data[place : place + size] for place in range(0, len(data), size)]
    cut = _LOOP.run_until_complete(site.serve(pieces))
    _check_answers(whole)
    _check_answers(cut)
    assert site.bodies == bodies, f"{bodies} whole, {site.bodies} in pieces"


def _check_answers(sent: bytes) -> None:
    """Sees that a client that reads by the standard finds answers and nothing else."""
    while sent:
        match = _STATUS.match(sent)
        assert match is not None, sent[:100]
        head, end, rest = sent.partition(b"\r\n\r\n")
        assert end and b"\n" not in head.replace(b"\r\n", b""), "a broken head"
        length = re.search(rb"\r\ncontent-length: ([0-9]+)", head.lower())
        if match[1] == b"100":
            sent = rest
        elif length is not None:
            sent = rest[int(length[1]) :]
        else:
            return  # chunks, or to the end of the connection


_SCHEMAS = (
    schemas.EmbeddingRequest,
    schemas.SearchRequest,
    schemas.ClassifyRequest,
    schemas.SimilarityRequest,
    schemas.AskRequest,
)
_TYPE = b"multipart/form-data; boundary=x"


def body(data: bytes) -> None:
    """The first byte names the schema; ``f``: a form, whose type is the first line."""
    try:
        if data[:1] == b"f":
            kind, _, content = data[1:].partition(b"\n")
            request = SimpleNamespace(
                headers=Headers(raw=[(b"content-type", kind)]),
                app=SimpleNamespace(state=SimpleNamespace(service=SimpleNamespace(limits=LIMITS))),
            )
            _LOOP.run_until_complete(routes._form(request, Body(bytearray(content)), LIMITS))  # type: ignore
            return
        number = data[0] % 8 % len(_SCHEMAS) if data else 0
        wanted = checked(_SCHEMAS[number], parse_json(data[1:]))
        _further(wanted)
    except RequestError as error:
        answer = error.body()
        orjson.dumps(answer)
        json.dumps(answer).encode()
        assert 400 <= error.status < 500, error.status
        assert len(error.message) < 1500, "a message repeats much of what was sent"
        error.response()
        raise


def _further(wanted: Any) -> None:
    """What an endpoint does with a request before any work."""
    if isinstance(wanted, schemas.EmbeddingRequest):
        routes.check_counts(routes._inputs(wanted, LIMITS), LIMITS, "input")
    elif isinstance(wanted, schemas.SearchRequest):
        routes.one_input(wanted.query, "query", LIMITS)
    elif isinstance(wanted, schemas.ClassifyRequest):
        routes._pictures(wanted.images, LIMITS)
        prompt_inputs(wanted.labels, wanted.templates, LIMITS)
    elif isinstance(wanted, schemas.SimilarityRequest):
        routes._pictures(wanted.images, LIMITS)
    else:
        image_input(wanted.image, "image", LIMITS)
        text_input(wanted.question, "question", LIMITS)


def requests() -> list[bytes]:
    """Connections with one request or several."""
    post = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    found = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a?b=c HTTP/1.0\r\n\r\n",
        post + b'Content-Length: 14\r\n\r\n{"input": "a"}',
        post + b"Content-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        chunked + b"5\r\nhello\r\n1;a=b\r\nx\r\n0\r\n\r\n",
        chunked + b"3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        post + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\nConnection: close\r\n\r\n",
    ]
    return [bytes([place * 5 + 2]) + one for place, one in enumerate(found)]


def bodies() -> list[bytes]:
    """One of every schema, and forms."""
    import base64

    url = "data:image/png;base64," + base64.b64encode(picture(size=1)).decode()
    values: list[tuple[bytes, Any]] = [
        (b"0", {"input": ["a", {"type": "text", "text": "b"}], "encoding_format": "base64"}),
        (b"0", {"input": {"type": "image_url", "image_url": {"url": url}}, "modality": None}),
        (b"0", {"input": url, "model": "m", "dimensions": 4, "user": "u"}),
        (b"1", {"query": "a cat", "k": 3, "where": "split = 'test'", "thumbnails": True}),
        (b"2", {"images": [url], "labels": ["a", "b"], "templates": ["a {}", "{}{}"]}),
        (b"3", {"images": [url], "texts": ["a"]}),
        (b"4", {"image": url, "question": "what?", "answers": 2}),
    ]
    part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    form = part % (b"input", b"", b"a cat") + part % (b"dimensions", b"", b"4")
    file = part % (b"input", b'; filename="a.png"', picture(size=1))
    return [
        *(kind + json.dumps(value).encode() for kind, value in values),
        b"f" + _TYPE + b"\n" + form + file + b"--x--\r\n",
    ]


TARGETS = (
    Target(
        "http",
        connection,
        requests,
        (RequestError,),
        words=(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"\r\n")
        + (b"HTTP/1.1", b"HTTP/1.0", b"Host: x\r\n", b"0\r\n\r\n", b"Upgrade: websocket\r\n")
        + (b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"GET ", b"POST ", b"\n", b"PRI")
        + (b"ffffffff\r\n", b"CONNECT ", b"http://x/", b"\x16\x03\x01"),
        longest=4096,
        memory=96 * MIB,
    ),
    Target(
        "bodies",
        body,
        bodies,
        (RequestError,),
        words=(b"input", b"text", b"image_url", b"data:image/png;base64,", b"http://", b"null")
        + (b"\\ud800", b"1e999", b"--x\r\n", b"--x--", b"filename=", b"name=", b"form-data")
        + (b"Content-Disposition: ", b"; boundary=", b"charset=", b"\r\n\r\n", b"{}", b"[[[["),
        longest=8192,
        memory=96 * MIB,
    ),
)
