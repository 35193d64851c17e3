"""Heads and chunks of requests: what passes, what is refused, wherever the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.serving.base.errors import RequestError
from plait.serving.base.settings import Limits
from plait.serving.http import framing
from plait.serving.http.framing import CHUNKED, Chunks, end_of_head, read_head

LIMITS = Limits(head_bytes=1000, target_bytes=100, headers=5)


def head(*lines: bytes, first: bytes = b"POST /v1/embeddings HTTP/1.1") -> bytes:
    return b"\r\n".join((first, *lines)) + b"\r\n\r\n"


HOST = b"Host: localhost"


def test_what_a_head_says() -> None:
    assert read_head(head(HOST), LIMITS).length == 0
    assert read_head(head(HOST, b"Content-Length: 17 \t"), LIMITS).length == 17
    assert read_head(head(HOST, b"transfer-ENCODING:\tChunked"), LIMITS).length == CHUNKED
    plain = head(HOST, first=b"GET /a?b=%20c HTTP/1.0")
    assert read_head(plain, LIMITS).data == plain
    assert read_head(head(first=b"GET / HTTP/1.0"), LIMITS).length == 0
    # A client that offers HTTP/2 in passing is served as any other.
    offered = head(HOST, b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 2")
    found = read_head(offered, LIMITS)
    assert (found.length, b"h2c" in found.data) == (2, False)
    assert found.data == head(HOST, b"Connection: Upgrade", b"Content-Length: 2")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(HOST, b"Content-Length: 1", b"Content-Length: 1"), 400),
        (head(HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400),
        (head(HOST, b"Transfer-Encoding: chunked", b"Content-Length: 1"), 400),
        (head(HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
        (head(HOST, b"Transfer-Encoding: gzip, chunked"), 400),
        (head(HOST, b"Transfer-Encoding: identity"), 400),
        (head(HOST, b"Transfer-Encoding: \x0bchunked"), 400),
        (head(HOST, b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"), 400),
        (head(HOST, b"Content-Length: +1"), 400),
        (head(HOST, b"Content-Length: -1"), 400),
        (head(HOST, b"Content-Length: 0x1"), 400),
        (head(HOST, b"Content-Length: 1, 1"), 400),
        (head(HOST, b"Content-Length:"), 400),
        (head(HOST, b"Content-Length: " + b"9" * 30), 400),
        (head(HOST, b"Content-Length : 1"), 400),
        (head(HOST, b" Content-Length: 1"), 400),
        (head(HOST, b"X: a", b" folded"), 400),
        (head(HOST, b"X: a", b"\tfolded"), 400),
        (head(HOST, b"X: a\nContent-Length: 1"), 400),
        (head(HOST, b"X: a\rContent-Length: 1"), 400),
        (head(HOST, b"X: a\x00"), 400),
        (head(HOST, b"no colon"), 400),
        (head(HOST, b": no name"), 400),
        (head(HOST, b"X\xe9: a"), 400),
        (head(), 400),
        (head(HOST, HOST), 400),
        (head(HOST, b"hOST: evil"), 400),
        (head(HOST, b"Upgrade: websocket"), 400),
        (head(HOST, first=b"GET http://localhost/ HTTP/1.1"), 400),
        (head(HOST, first=b"GET localhost:80 HTTP/1.1"), 400),
        (head(HOST, first=b"OPTIONS * HTTP/1.1"), 400),
        (head(HOST, first=b"GET /a#b HTTP/1.1"), 400),
        (head(HOST, first=b"GET /a b HTTP/1.1"), 400),
        (head(HOST, first=b"GET  / HTTP/1.1"), 400),
        (head(HOST, first=b"GET\t/ HTTP/1.1"), 400),
        (head(HOST, first=b"GET /\xff HTTP/1.1"), 400),
        (head(HOST, first=b"GET / HTTP/1.1 "), 400),
        (head(HOST, first=b"GET / http/1.1"), 400),
        (head(HOST, first=b"GET /"), 400),
        (head(HOST, first=b"get / HTTP/1.1"), 400),
        (head(HOST, first=b"CONNECT / HTTP/1.1"), 501),
        (head(HOST, first=b"TRACE / HTTP/1.1"), 501),
        (head(first=b"PRI * HTTP/2.0"), 505),
        (head(HOST, first=b"GET / HTTP/1.2"), 505),
        (head(HOST, first=b"GET /" + b"a" * 100 + b" HTTP/1.1"), 414),
        (head(*[b"X: a"] * 5, HOST), 431),
    ],
)
def test_heads_that_are_refused(data: bytes, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        read_head(data, LIMITS)
    assert caught.value.status == status
    assert len(caught.value.message) < 400


def test_the_end_of_a_head() -> None:
    data = head(HOST) + b"body\r\n\r\n"
    assert end_of_head(data, 0, 1000) == len(head(HOST))
    for cut in range(1, len(head(HOST))):
        assert end_of_head(data[:cut], max(0, cut - 1), 1000) == 0
    for looked_at in range(len(head(HOST))):
        assert end_of_head(data, looked_at, 1000) == len(head(HOST))
    exact = head(HOST, b"X: " + b"a" * 200)
    assert end_of_head(exact, 0, len(exact)) == len(exact)
    for most in (len(exact) - 1, 100):
        with pytest.raises(RequestError) as caught:
            end_of_head(exact, 0, most)
        assert caught.value.status == 431
    for wrong in (b"\x16\x03\x01", b"\0", b" GET /", b"GET / HTTP/1.1\nHost: a\n\n", b"GE\r\nT\n"):
        with pytest.raises(RequestError) as caught:
            end_of_head(wrong, 0, 1000)
        assert caught.value.status == 400


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    rest=st.binary(max_size=20),
    extension=st.sampled_from([b"", b";a", b' ; a="b"']),
    trailer=st.sampled_from([b"", b"X: a\r\n", b"Authorization: Bearer x\r\nY:\r\n"]),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
def test_chunks_wherever_they_are_cut(
    parts: list[bytes], rest: bytes, extension: bytes, trailer: bytes, cuts: list[int]
) -> None:
    data = b"".join(b"%X%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    data += b"000" + extension + b"\r\n" + trailer + b"\r\n" + rest
    chunks, out, after = Chunks(), b"", b""
    for piece in pieces(data, cuts):
        if chunks.done:
            after += piece
            continue
        got, left = chunks.take(piece)
        out, after = out + got, after + left
    assert chunks.done
    assert after == rest
    plain = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    assert out == plain


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"g\r\n", 400),
        (b"\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x1\r\n", 400),
        (b" 1\r\n", 400),
        (b"1\n", 400),
        (b"123456789\r\n", 400),
        (b"1;" + b"a" * 300 + b"\r\n", 400),
        (b"1;" + b"a" * 300, 400),
        (b"1;a\x00\r\n", 400),
        (b"1\r\nab\r\n", 400),
        (b"1\r\na\n", 400),
        (b"0\r\nX : a\r\n", 400),
        (b"0\r\n folded\r\n", 400),
        (b"0\r\n" + b"X: a\r\n" * 700, 431),
        (b"0\r\nX: " + b"a" * 5000, 431),
        (b"1\r\na\r\n" * 1800, 400),
        (b"10\r\n" + b"a" * 16 + b"\r\n", 0),
    ],
)
def test_chunks_that_are_refused(data: bytes, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "_WRAPPING", (1 << 13, 16))
    for step in (len(data), 97):
        chunks = Chunks()
        if not status:
            assert chunks.take(data) == (data, b"")
            continue
        with pytest.raises(RequestError) as caught:
            for place in range(0, len(data), step):
                chunks.take(data[place : place + step])
        assert caught.value.status == status


def test_many_large_chunks_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "_WRAPPING", (1 << 13, 16))
    chunks, data = Chunks(), b"400\r\n" + b"a" * 1024 + b"\r\n"
    for _ in range(20):
        assert chunks.take(data * 80) == (data * 80, b"")
