"""Where a request's head and body begin and end in a stream of bytes: strict, and within limits.

What passes is well formed by RFC 9112 without its leniencies, so that the parser behind, and a
proxy in front, cannot see other borders than these. Nothing here reads or writes a socket.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from plait.core.errors import shown
from plait.serving.base.errors import RequestError
from plait.serving.base.settings import Limits

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
CHUNKED = -1  # the length of a body that comes in chunks

_END = b"\r\n\r\n"
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE = re.compile(rb"([A-Z]+) ([^\x00-\x20\x7f-\xff]+) HTTP/([0-9]\.[0-9])\r\n")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*")
_TELLING = re.compile(
    rb"\r\n(host|content-length|transfer-encoding|upgrade):[ \t]*([^\r]*)", re.IGNORECASE
)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FIELD = re.compile(_TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*\r\n")
_CHUNK_LINE = 256  # bytes of a chunk's size with its extensions
_TRAILERS = 4096  # bytes
_WRAPPING = 1 << 16, 16  # bytes that chunks may add to a body, and one more for each so many


def malformed(message: str, status: int = 400, code: str = "malformed") -> RequestError:
    """A request after which nothing on its connection can be trusted."""
    return RequestError(status, message, code=code, headers={"Connection": "close"})


_WISHES = re.compile(rb"\r\n(?:connection:[^\r]*close|x-request-id:|expect:)", re.IGNORECASE)


@dataclass(frozen=True)
class Head:
    """The head of a request.

    Attributes:
        data: as the parser is to see it: to its last blank line, without an ``Upgrade``.
        length: of the body in bytes, or CHUNKED.
        method: of the request.
        target: its path, with a query if there is one.
        version: of HTTP.
    """

    data: bytes
    length: int
    method: str
    target: str
    version: bytes

    @property
    def is_plain(self) -> bool:
        """Whether the connection stays, and the client asks for nothing that an answer must show."""
        return self.version == b"1.1" and _WISHES.search(self.data) is None


def end_of_head(data: bytes | bytearray, looked_at: int, most: int) -> int:
    """Where the body begins, or 0 while the head is incomplete.

    Args:
        data: from the head's first byte.
        looked_at: so many of them were there at the last call.
        most: bytes of a head.

    Raises:
        RequestError: 431 when it is longer, 400 when it never can become one.
    """
    place = data.find(_END, max(0, looked_at - 3), most)
    if place >= 0:
        return place + len(_END)
    if len(data) >= most:
        raise malformed(f"the head of the request has more than {most:,} bytes", 431, "large_head")
    if not 0x41 <= data[0] <= 0x5A:  # a TLS hello, for one, which would wait for an answer
        raise malformed("this port speaks HTTP/1.1 without TLS, and this is something else")
    line = data.find(b"\n", max(0, looked_at - 1))
    while line >= 0:
        if line == 0 or data[line - 1] != 0x0D:
            raise malformed("a line of the head ends without a carriage return")
        line = data.find(b"\n", line + 1)
    return 0


def read_head(data: bytes, limits: Limits) -> Head:
    """A complete head, checked.

    Raises:
        RequestError: 400, 413, 414, 431, 501 or 505.
    """
    line = _LINE.match(data)
    if line is None:
        raise malformed(f"the request line is malformed: {shown(data[:100])}")
    method, target, version = line.groups()
    _check_line(method, target, version, limits)
    count = data.count(b"\r\n") - 2
    if count > limits.headers:
        raise malformed(
            f"the request has {count} header lines, and the limit is {limits.headers}",
            431,
            "many_headers",
        )
    if _FIELDS.fullmatch(data, line.end(), len(data) - 2) is None:
        raise malformed(
            "a header line is malformed: each is NAME: VALUE on one line, without a space before "
            "the colon and without control characters"
        )
    length: int | None = None
    hosts = 0
    for name, value in _TELLING.findall(data, line.end() - 2):
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"host":
            hosts += 1
        elif name == b"upgrade":
            data = _not_upgraded(data, value)
        elif length is not None:
            raise malformed("the request tells the length of its body twice")
        elif name == b"content-length":
            if _LENGTH.fullmatch(value) is None:
                raise malformed(f"the Content-Length is no number: {shown(value)}")
            length = int(value)
        elif value.lower() != b"chunked" or version != b"1.1":
            raise malformed(f"the Transfer-Encoding is {shown(value)}: only chunked is known")
        else:
            length = CHUNKED
    if hosts > 1 or (hosts == 0 and version == b"1.1"):
        raise malformed(f"the request has {hosts} Host headers, and must have one")
    return Head(data, length or 0, method.decode(), target.decode("latin-1"), version)


def _check_line(method: bytes, target: bytes, version: bytes, limits: Limits) -> None:
    if version not in (b"1.1", b"1.0"):
        raise malformed(f"HTTP/{version.decode()}: this port speaks HTTP/1.1", 505, "http_version")
    if method not in METHODS:
        raise malformed(f"the method {shown(method)} is not known", 501, "unknown_method")
    if len(target) > limits.target_bytes:
        raise malformed(
            f"the target of the request has more than {limits.target_bytes:,} bytes",
            414,
            "long_target",
        )
    if target[:1] != b"/" or b"#" in target:
        raise malformed("the target of the request must be a path: /v1/embeddings, say")


def _not_upgraded(data: bytes, wanted: bytes) -> bytes:
    """The head without its ``Upgrade``, which a server may ignore (RFC 9110, 7.8)."""
    if b"websocket" in wanted.lower():
        raise malformed("this server speaks no WebSocket: send plain requests", code="no_websocket")
    return re.sub(rb"\r\nupgrade:[^\r]*", b"", data, flags=re.IGNORECASE)


class Chunks:
    """A body in chunks, whose extensions and trailers end here.

    Attributes:
        done: the body is complete.
    """

    def __init__(self) -> None:
        self.done = False
        self._line = bytearray()  # the beginning of one whose end has not come
        self._left = 0  # of the chunk's content
        self._stage = _SIZE
        self._content, self._wrapping, self._trailers = 0, 0, 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """The part of ``data`` that belongs to the body, as plain chunks, and what follows it.

        Raises:
            RequestError: 400 for malformed chunks, and for very many small ones.
        """
        out: list[bytes] = []
        place = 0
        while place < len(data) and not self.done:
            if self._stage is _CONTENT:
                part = data[place : place + self._left]
                place += len(part)
                self._left -= len(part)
                out.append(part)
                if not self._left:
                    self._stage = _AFTER
                continue
            end = data.find(b"\n", place)
            stop = len(data) if end < 0 else end + 1
            if len(self._line) + stop - place > _CHUNK_LINE and self._stage is not _TRAILER:
                raise malformed("the size of a chunk, with its extensions, is too long")
            self._line += data[place:stop]
            self._count(stop - place)
            place = stop
            if end >= 0:
                line, self._line = bytes(self._line), bytearray()
                out.append(self._ended(line))
        return b"".join(out), data[place:]

    def _count(self, more: int) -> None:
        self._wrapping += more
        free, share = _WRAPPING
        if self._wrapping > free + self._content // share:
            raise malformed("the body comes in too many small chunks: send larger ones")
        if self._stage is _TRAILER:
            self._trailers += more
            if self._trailers > _TRAILERS:
                raise malformed("the trailers are too long", 431, "large_trailers")

    def _ended(self, line: bytes) -> bytes:
        """What the parser is to see of a line."""
        if self._stage is _SIZE:
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise malformed(f"the size of a chunk is malformed: {shown(line[:100])}")
            self._left = int(match[1], 16)
            self._content += self._left
            self._stage = _CONTENT if self._left else _TRAILER
            return b"%x\r\n" % self._left if self._left else b""
        if self._stage is _AFTER:
            if line != b"\r\n":
                raise malformed("a chunk is longer than it says")
            self._stage = _SIZE
            return line
        if line == b"\r\n":
            self.done = True
            return b"0\r\n\r\n"
        if _FIELD.fullmatch(line) is None:
            raise malformed("a trailer is malformed")
        return b""


_SIZE, _CONTENT, _AFTER, _TRAILER = "size", "content", "after", "trailer"
