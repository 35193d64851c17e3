"""Raw connections to a small application behind the guarded protocol, with short limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvicorn

from plait.serving.base.connections import Guard, client_of
from plait.serving.base.errors import RequestError, overloaded
from plait.serving.base.settings import Limits
from plait.serving.http import protocol
from plait.serving.http.protocol import guarded_protocol

LIMITS = Limits(
    head_bytes=2000,
    headers=20,
    head_seconds=0.5,
    idle_seconds=1.0,
    body_seconds=0.5,
    answer_seconds=0.5,
    connections=40,
    client_share=1.0,
)
LARGE = 8 << 20


@dataclass
class Site:
    """A server in a thread, and what it saw."""

    port: int
    guard: Guard
    reasons: Counter[str]
    seen: list[tuple[str, bytes, dict[bytes, bytes]]]
    opened: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Closes every connection, and waits until the server knows."""
        while self.opened:
            self.opened.pop().close()
        eventually(lambda: len(self.guard) == 0)

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), 5, source_address=(source, 0))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened.append(made)
        return made

    def ask(self, *parts: bytes, pause: float = 0.02) -> bytes:
        """What comes back until the server closes or says nothing for a while."""
        with self.connect() as one:
            for number, part in enumerate(parts):
                if number:
                    time.sleep(pause)
                with contextlib.suppress(ConnectionError):
                    one.sendall(part)
            return received(one)


def received(one: socket.socket, seconds: float = 5.0) -> bytes:
    """What comes within so many seconds, until the server closes or pauses for a while."""
    one.settimeout(seconds)
    found = b""
    with contextlib.suppress(TimeoutError):
        while block := one.recv(1 << 16):
            found += block
            one.settimeout(0.25)
    return found


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def closed_within(one: socket.socket, seconds: float) -> bool:
    one.settimeout(seconds)
    try:
        while one.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@contextlib.contextmanager
def site(limits: Limits = LIMITS, parser: str = "httptools", **more: Any) -> Iterator[Site]:
    reasons: Counter[str] = Counter()
    seen: list[tuple[str, bytes, dict[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/early":  # before the body is read
            body = b"no"
        else:
            body = b""
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    seen.append(("gone", body, {}))
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
            told = {b"looked at": scope[protocol.LOOKED_AT], **dict(scope["headers"])}
            seen.append((scope["path"], body, told))
        if scope["path"] == "/slow":
            await asyncio.sleep(0.2)
        if scope["path"] == "/large":
            body = b"x" * LARGE
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    guard = Guard(limits, refused=lambda reason: reasons.update([reason]), tick=0.05, **more)
    made: Any = guarded_protocol(guard, parser)
    config = uvicorn.Config(app, http=made, ws="none", lifespan="off", log_config=None, backlog=512)
    config.timeout_keep_alive = 60  # the guard's own limit is what is tested
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    made_site = Site(listening.getsockname()[1], guard, reasons, seen)
    try:
        yield made_site
    finally:
        made_site.close()
        server.should_exit = True
        thread.join(10)
        listening.close()
        assert not thread.is_alive()
        assert len(guard) == 0


@pytest.fixture(scope="module", params=["httptools", "h11"])
def shared(request: pytest.FixtureRequest) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch, site(parser=request.param) as made:
        patch.setattr(protocol, "_SLACK", 0.3)
        yield made


@pytest.fixture
def small(shared: Site) -> Iterator[Site]:
    yield shared
    shared.close()


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: a", *lines, "", "")).encode()


def get(path: str = "/") -> bytes:
    return head(path, method="GET")


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1]) if reply else 0


def test_requests_in_any_pieces(small: Site) -> None:
    whole = head("/echo", "Content-Length: 5") + b"hello"
    chunked = head("/echo", "Transfer-Encoding: chunked") + b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n"
    for data in (whole, chunked + b"Host: evil\r\n\r\n"):
        for step in (len(data), 30, 1):
            reply = small.ask(*(data[i : i + step] for i in range(0, len(data), step)), pause=0)
            assert status(reply) == 200
            assert reply.endswith(b"\r\n\r\nhello")
            assert b"connection: close" not in reply
            path, body, headers = small.seen[-1]
            assert (path, body, headers[b"host"]) == ("/echo", b"hello", b"a")


def test_requests_one_after_another_on_a_connection(small: Site) -> None:
    reply = small.ask(get("/slow") + get("/a") + b"\r\n" + get("/b"), get("/c"))
    assert reply.count(b"HTTP/1.1 200") == 4
    assert [path for path, _, _ in small.seen[-4:]] == ["/slow", "/a", "/b", "/c"]
    # Of very many sent ahead none are kept; the first is answered, and says that it is the last.
    one = small.connect()
    one.sendall(get("/slow") * 1000)
    found = b""
    with contextlib.suppress(ConnectionError):
        found = one.recv(1 << 16)
    assert found.count(b"HTTP/1.1 200") == 1
    assert closed_within(one, 0.5)
    assert [path for path, _, _ in small.seen[-2:]] == ["/c", "/slow"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\r\n\r\n\r\n", 400),
        (get("http://a/"), 400),
        (head("/", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (head("/", "Connection: Upgrade", "Upgrade: websocket", method="GET"), 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2000, 431),
        (head("/", *["X: a"] * 30), 431),
        (head("/", "Transfer-Encoding: chunked") + b"5\r\nhelloo\r\n", 400),
        (head("/", "Transfer-Encoding: chunked") + b"0\r\n" + b"X: a\r\n" * 1000, 431),
    ],
)
def test_refusals_are_answers_and_close(small: Site, data: bytes, expected: int) -> None:
    with small.connect() as one:
        one.sendall(data)
        began = time.monotonic()
        reply = received(one)
        assert time.monotonic() - began < 2.5
    assert status(reply) == expected
    top, _, body = reply.partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["message"]
    for line in (b"connection: close", b"nosniff", b"frame-ancestors 'none'"):
        assert line in top.lower()


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_a_whole_request_can_be_refused_before_the_application(parser: str) -> None:
    asked = []

    def shed(path: str, body: bytes, client: str) -> RequestError | None:
        asked.append((path, body, client))
        return overloaded(2.5, "a test") if body == b"no" else None

    def post(body: bytes, *lines: str) -> bytes:
        return head("/v1/x", f"Content-Length: {len(body)}", *lines) + body

    with site(parser=parser, shed=shed) as made:
        reply = made.ask(post(b"no") + post(b"ok") + post(b"no"), get("/end"))
        assert [int(part[:3]) for part in reply.split(b"HTTP/1.1 ")[1:]] == [429, 200, 429, 200]
        assert reply.count(b"connection: keep-alive") == reply.count(b"retry-after: 3") == 2
        assert asked == [("/v1/x", body, "127.0.0.1") for body in (b"no", b"ok", b"no")]
        assert [path for path, _, _ in made.seen] == ["/v1/x", "/end"]
        assert [headers[b"looked at"] for _, _, headers in made.seen] == [True, False]
        # The application knows better what is in pieces, or what an answer must show.
        for parts in (
            (post(b"no")[:-2], b"no"),
            (post(b"no", "Connection: close"),),
            (post(b"no", "X-Request-Id: a"),),
        ):
            assert status(made.ask(*parts)) == 200
        assert len(asked) == 3
        assert not any(headers[b"looked at"] for _, _, headers in made.seen[2:])


def test_a_head_without_end_is_not_taken(small: Site) -> None:
    with small.connect() as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        sent = 0
        with pytest.raises(ConnectionError):
            for _ in range(200):
                one.sendall(b"a" * (1 << 18))
                sent += 1 << 18
        # What the server reads of it before it hangs up, and what fits into buffers.
        assert sent < 20 << 20


def test_an_answer_before_the_end_of_the_body_arrives(small: Site) -> None:
    with small.connect() as one:
        one.sendall(head("/early", f"Content-Length: {1 << 30}") + b"a" * 100_000)
        reply = received(one)
        assert closed_within(one, 0.1)
    assert status(reply) == 200
    assert reply.endswith(b"\r\n\r\nno")


def test_every_wait_has_an_end(small: Site) -> None:
    """Silence, half a head, half a body, a body a byte at a time, silence after an answer."""
    gone = sum(kind == "gone" for kind, _, _ in small.seen)
    begun = {
        "silent": (b"", 1.0),
        "head": (b"GET / HTTP/1.1\r\nHost:", 1.0),
        "answered": (get(), 2.0),
        "body": (head("/", "Content-Length: 9") + b"x", 2.0),
        "chunks": (head("/", "Transfer-Encoding: chunked") + b"1\r\n", 2.0),
    }
    sockets = {name: small.connect() for name in begun}
    began = time.monotonic()
    for name, (data, _) in begun.items():
        sockets[name].sendall(data)
    slow = small.connect()
    with contextlib.suppress(ConnectionError):
        for letter in b"GET / HTTP/1.1\r\nHost: a":
            slow.sendall(bytes([letter]))
            time.sleep(0.03)
    assert status(received(slow)) == 408
    assert status(received(sockets["head"])) == 408
    for name, (_, seconds) in begun.items():
        assert closed_within(sockets[name], max(0.05, began + seconds - time.monotonic())), name
    assert sum(kind == "gone" for kind, _, _ in small.seen) == gone + 2
    assert small.reasons["slow_body"] >= 2


def test_a_client_that_never_reads_its_answer_is_left(small: Site) -> None:
    with small.connect() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(get("/large"))
        eventually(lambda: small.reasons["slow_reader"] > 0)
    with small.connect() as one:  # and one that reads gets all
        one.sendall(get("/large"))
        assert len(received(one)) > LARGE


def test_a_silent_connection_makes_room_for_a_new_one() -> None:
    with site(replace(LIMITS, head_seconds=30.0)) as small:
        silent = [small.connect() for _ in range(100)]
        for _ in range(5):
            assert status(small.ask(get())) == 200
        eventually(lambda: small.reasons["connections"] > 60)
        assert len(small.guard) <= LIMITS.connections
        for one in silent[:50]:
            assert closed_within(one, 0.2)
        assert not closed_within(silent[-1], 0.05)


def test_a_connection_at_work_is_not_given_up_for_a_new_one() -> None:
    with site(replace(LIMITS, connections=4)) as small:
        working = [small.connect() for _ in range(4)]
        for one in working:
            one.sendall(get("/slow"))
        time.sleep(0.05)
        assert status(small.ask(get())) == 429
        for one in working:
            assert status(received(one)) == 200
        small.close()
        # One whose body does not come goes before a new one is refused.
        sending = [small.connect() for _ in range(4)]
        for one in sending:
            one.sendall(head("/", "Content-Length: 9") + b"x")
        time.sleep(0.05)
        assert status(small.ask(get())) == 200
        assert closed_within(sending[0], 1)
        assert not closed_within(sending[3], 0.05)


def test_a_client_cannot_hold_all_connections_unless_it_is_a_proxy() -> None:
    limits = replace(LIMITS, connections=8, client_share=0.5, head_seconds=30.0)
    for proxies, expected in (((), 4), (("127.0.0.1",), 8)):
        with site(limits, proxies=proxies) as small:
            one = small.connect("127.0.0.2")
            for _ in range(7):
                small.connect()
            wanted = expected + (expected == 4)
            eventually(lambda: small.reasons["connections"] == 8 - wanted)  # noqa: B023
            eventually(lambda: len(small.guard) == wanted)  # noqa: B023
            one.sendall(get())
            assert status(received(one)) == 200


def test_few_descriptors_leave_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (200, limits[1]))
    few = Guard(Limits()).most
    assert 8 <= few <= 200 - 64
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10_000, limits[1]))
    assert Guard(Limits()).most == Limits().connections
    assert Guard(Limits()).most_of_one == Limits().connections // 2


def test_an_abrupt_end_is_forgotten(small: Site) -> None:
    for data in (b"", b"GET /", head("/", "Content-Length: 9") + b"x", get("/large")):
        one = small.connect()
        one.sendall(data)
        time.sleep(0.02)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
    eventually(lambda: len(small.guard) == 0)


def test_who_a_client_is() -> None:
    assert client_of("10.0.0.1") == client_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1")
    assert client_of("2001:db8::1") != client_of("2001:db8:0:1::1")
    assert client_of("fe80::1%eth0") == client_of("fe80::2")
    assert len(client_of("x" * 1000)) <= 64
