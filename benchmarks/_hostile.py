"""Requests that try to take a server down, beyond the broken ones of `benchmarks._requests`.

None of them costs its sender much. What they may be answered with is a refusal, or what little of
them is valid; nothing that others notice.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
from benchmarks._requests import BROKEN, EMBED, Broken, data_url, picture, png
from benchmarks._server import Caller, Reply, head
from benchmarks._wire import Misdeed
from PIL import Image

_SECONDS = 3.0  # that a silent one stays: each of a crowd of them
_BLOCK = 1 << 16


def misdeeds(url: str, kinds: Mapping[str, Broken], rng: random.Random) -> Iterator[Misdeed]:
    """Misdeeds of all kinds in turn, without an end, over connections that are kept."""
    idle: list[Caller] = []
    while True:
        for kind in kinds.values():

            async def deed(kind: Broken = kind) -> int | None:
                caller = idle.pop() if idle else Caller(url)
                try:
                    reply = await kind(caller, rng)
                except BaseException:
                    caller.close()
                    raise
                idle.append(caller)
                return None if reply is None else reply.status

            yield deed


def _posted(
    make: Callable[[], Any], path: str = EMBED, headers: Mapping[str, str] | None = None
) -> Broken:
    """Posts JSON that is made when it is first needed, and once."""

    @cache
    def body() -> bytes:
        return json.dumps(make(), ensure_ascii=False).encode()

    async def misbehave(caller: Caller, rng: random.Random) -> Reply | None:
        return await caller.send("POST", path, body(), headers)

    return misbehave


def _shown(make: Callable[[], bytes], kind: str = "image/png") -> Broken:
    return _posted(lambda: {"input": data_url(make(), kind)})


def many_scans(count: int = 2000) -> bytes:
    """A small progressive JPEG whose last scan is repeated: each costs a walk over all pixels."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).resize((2000, 2000)).save(buffer, "JPEG", progressive=True, quality=5)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def flat_png(width: int, height: int, *, depth: int, colour: int, channels: int) -> bytes:
    """A PNG of very many equal pixels in any kind of pixel."""
    line = b"\0" * (1 + width * channels * depth // 8)
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(line) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    whole = png(width, height, packed)
    return whole[:8] + _chunk(b"IHDR", header) + whole[8 + 25 :]


def _chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def swollen_text() -> bytes:
    """A PNG with a compressed comment of 64 MB."""
    whole = png(4, 4, zlib.compress((b"\0" + b"\x7f" * 4) * 4))
    comment = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * (64 << 20), 9))
    return whole[: 8 + 25] + comment + whole[8 + 25 :]


def many_frames(count: int = 3000) -> bytes:
    """A GIF of many frames, of which one is wanted."""
    buffer = io.BytesIO()
    frames = [Image.new("L", (64, 64), number % 256) for number in range(count)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _han() -> Any:
    rng = random.Random(0)
    text = "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(20_000))
    return {"input": [text] * 100}


def _nested(depth: int) -> str:
    return "(" * depth + "a = 1" + ")" * depth


async def _raw(caller: Caller, data: bytes) -> Reply | None:
    """Sends bytes on a connection of its own; the answer, if there is one."""
    caller.close()
    try:
        return await caller.raw(data)
    except (OSError, asyncio.IncompleteReadError):
        return None
    finally:
        caller.close()


async def _silent(caller: Caller, data: bytes) -> None:
    """Sends the beginning of something on a connection of its own, and stays."""
    caller.close()
    _, writer = await caller.connect()
    writer.write(data)
    await asyncio.sleep(_SECONDS)
    caller.close()


async def _says_nothing(caller: Caller, rng: random.Random) -> Reply | None:
    await _silent(caller, b"")
    return None


async def _promises_a_body(caller: Caller, rng: random.Random) -> Reply | None:
    await _silent(caller, head("POST", EMBED, caller.url, 32 << 20, {}))
    return None


async def _half_a_head(caller: Caller, rng: random.Random) -> Reply | None:
    await _silent(caller, b"POST /v1/embeddings HTTP/1.1\r\nHost: 127")
    return None


async def _endless_header(caller: Caller, rng: random.Random) -> Reply | None:
    caller.close()
    reader, writer = await caller.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ")
    try:
        for _ in range(256):  # 16 MiB, unless the server has had enough
            writer.write(b"a" * _BLOCK)
            await writer.drain()
            if reader.at_eof() or writer.is_closing():
                break
    except OSError:
        pass
    caller.close()
    return None


async def _small_chunks(caller: Caller, rng: random.Random) -> Reply | None:
    lines = head("POST", EMBED, caller.url, None, {"Transfer-Encoding": "chunked"})
    return await _raw(caller, lines + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")


async def _many_at_once(caller: Caller, rng: random.Random) -> Reply | None:
    return await _raw(caller, head("GET", "/v1/models", caller.url, None, {}) * 500)


async def _does_not_read(caller: Caller, rng: random.Random) -> Reply | None:
    body = json.dumps({"input": ["a"] * 500, "encoding_format": "float"}).encode()
    await _silent(caller, head("POST", EMBED, caller.url, len(body), {}) + body)
    return None


def _hosts(*lines: bytes) -> Broken:
    async def misbehave(caller: Caller, rng: random.Random) -> Reply | None:
        body = b'{"input": "a"}'
        rest = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        top = b"POST /v1/embeddings HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines)
        return await _raw(caller, top + rest + body)

    return misbehave


HOSTILE: Final[Mapping[str, Broken]] = {
    "JPEG of 2,000 scans": _shown(many_scans, "image/jpeg"),
    "RGBA of 25 million pixels": _shown(
        lambda: flat_png(5000, 5000, depth=8, colour=6, channels=4)
    ),
    "grey and alpha of 25 million pixels": _shown(
        lambda: flat_png(5000, 5000, depth=8, colour=4, channels=2)
    ),
    "16 bits of 25 million pixels": _shown(
        lambda: flat_png(5000, 5000, depth=16, colour=2, channels=3)
    ),
    "a comment of 64 MB": _shown(swollen_text),
    "GIF of 3,000 frames": _shown(many_frames, "image/gif"),
    "Han texts": _posted(_han),
    "bare base64": _posted(
        lambda: {"input": base64.b64encode(picture(random.Random(0), (640, 480))).decode()}
    ),
    "octet stream": _posted(
        lambda: {"input": data_url(picture(random.Random(0), (64, 64)), "application/octet-stream")}
    ),
    "long list in a filter": _posted(
        lambda: {"query": "a", "where": f"a in ({', '.join(map(str, range(50_000)))})"},
        "/v1/search",
    ),
    "chain of or in a filter": _posted(
        lambda: {"query": "a", "where": " or ".join(f"a = {n}" for n in range(20_000))},
        "/v1/search",
    ),
    "deep filter": _posted(lambda: {"query": "a", "where": _nested(50_000)}, "/v1/search"),
    "many labels": _posted(
        lambda: {"images": [data_url(png(4, 4))], "labels": ["a"] * 15_000}, "/v1/classify"
    ),
    "tensors that are none": _posted(lambda: ["x" * 100_000], "/v1/towers/image"),
    "foreign page": _posted(lambda: {"input": "a"}, headers={"Origin": "https://evil.example"}),
    "foreign host": _hosts(b"Host: evil.example"),
    "two hosts": _hosts(b"Host: 127.0.0.1", b"Host: evil.example"),
    "host with a user": _hosts(b"Host: 127.0.0.1:80@evil.example"),
    "no host": _hosts(),
    "says nothing": _says_nothing,
    "promises a body": _promises_a_body,
    "half a head": _half_a_head,
    "endless header": _endless_header,
    "small chunks": _small_chunks,
    "500 requests at once": _many_at_once,
    "does not read its answer": _does_not_read,
}
EVERYTHING: Final[Mapping[str, Broken]] = {**BROKEN, **HOSTILE}
