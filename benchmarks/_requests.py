"""Requests for servers: valid ones of mixed sizes, and every kind of broken one.

A broken request is a way of misbehaving on a connection; what it may be answered with is 4xx with a
reason, or nothing where it hangs up itself.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import numpy as np
from benchmarks._server import Caller, Reply, head
from PIL import Image

EMBED: Final = "/v1/embeddings"
WORDS = [
    "a",
    "an",
    "the",
    "red",
    "blue",
    "green",
    "old",
    "young",
    "small",
    "large",
    "quiet",
    "bright",
    "dog",
    "cat",
    "horse",
    "bird",
    "tree",
    "house",
    "boat",
    "street",
    "market",
    "child",
    "woman",
    "man",
    "two",
    "three",
    "people",
    "bicycle",
    "kitchen",
    "window",
    "river",
    "mountain",
    "snow",
    "running",
    "sitting",
    "standing",
    "playing",
    "under",
    "over",
    "beside",
    "with",
    "without",
    "near",
    "and",
    "of",
    "in",
    "on",
]
SIZES = ((1, 1), (32, 32), (640, 480), (480, 640), (224, 224), (1024, 683), (300, 40), (1600, 1200))

Broken = Callable[[Caller, random.Random], Awaitable[Reply | None]]


def sentence(rng: random.Random, least: int = 2, most: int = 14) -> str:
    """Some words."""
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))


def picture(rng: random.Random, size: tuple[int, int], kind: str = "JPEG") -> bytes:
    """Smooth random blotches, encoded."""
    noise = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (6, 6, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def data_url(data: bytes, kind: str = "image/jpeg") -> str:
    """The bytes as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def texts(rng: random.Random, count: int) -> list[Any]:
    """Values of ``input``: one text each."""
    return [sentence(rng) for _ in range(count)]


def pictures(rng: random.Random, count: int, sizes: Any = SIZES) -> list[Any]:
    """Values of ``input``: one picture each, of mixed pixel sizes and formats."""
    found = []
    for number in range(count):
        kind = ("JPEG", "JPEG", "PNG", "WEBP")[number % 4]
        data = picture(rng, sizes[number % len(sizes)], kind)
        found.append(data_url(data, f"image/{kind.lower()}"))
    return found


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header promises a size, with any compressed content."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", data or zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def bomb(side: int = 20_000) -> bytes:
    """A small file of very many black pixels."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(b"\0" * (side + 1) * 100) for _ in range(side // 100)]
    return png(side, side, b"".join([*parts, packer.flush()]))


def _image(data: bytes, kind: str = "image/png") -> Broken:
    return _value({"input": ["beside a picture", data_url(data, kind)], "modality": None})


def _value(value: Any) -> Broken:
    return _body(json.dumps(value).encode())  # made once: the client shares the machine


def _body(body: bytes, headers: Mapping[str, str] | None = None, path: str = EMBED) -> Broken:
    async def misbehave(caller: Caller, rng: random.Random) -> Reply | None:
        return await caller.send("POST", path, body, headers)

    return misbehave


def _forced(url: str) -> Broken:
    return _value({"input": [url], "modality": "image"})


async def _leaves_inside_the_body(caller: Caller, rng: random.Random) -> Reply | None:
    _, writer = await caller.connect()
    body = json.dumps({"input": sentence(rng)}).encode()
    writer.write(head("POST", EMBED, caller.url, len(body), caller.headers) + body[:5])
    await writer.drain()
    caller.close()
    return None


async def _leaves_before_the_answer(caller: Caller, rng: random.Random) -> Reply | None:
    _, writer = await caller.connect()
    body = json.dumps({"input": data_url(picture(rng, (640, 480)))}).encode()
    writer.write(head("POST", EMBED, caller.url, len(body), caller.headers) + body)
    await writer.drain()
    await asyncio.sleep(rng.random() * 0.02)
    caller.close()
    return None


async def _leaves_with_a_reset(caller: Caller, rng: random.Random) -> Reply | None:
    _, writer = await caller.connect()
    body = json.dumps({"input": [sentence(rng)] * 50}).encode()
    writer.write(head("POST", EMBED, caller.url, len(body), caller.headers) + body)
    await writer.drain()
    writer.transport.abort()
    caller.close()
    return None


async def _no_http(caller: Caller, rng: random.Random) -> Reply | None:
    caller.close()
    return await caller.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http at all\r\n\r\n")


async def _declares_too_much(caller: Caller, rng: random.Random) -> Reply | None:
    return await caller.raw(head("POST", EMBED, caller.url, 1 << 40, caller.headers))


def _truncated() -> bytes:
    data = picture(random.Random(0), (640, 480))
    return data[: len(data) // 2]


BROKEN: Final[Mapping[str, Broken]] = {
    "truncated JPEG": _image(_truncated(), "image/jpeg"),
    "decompression bomb": _image(bomb()),
    "huge dimensions": _image(png(2**31 - 1, 2**31 - 1)),
    "no dimensions": _image(png(0, 7)),
    "damaged PNG": _image(png(64, 64, b"not compressed")),
    "text as a picture": _image(b"hello, I am no picture at all", "image/png"),
    "PostScript as a picture": _image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "wrong type of data URL": _forced(
        f"data:text/html;base64,{base64.b64encode(png(4, 4)).decode()}"
    ),
    "wrong type of body": _body(b'{"input": "hello"}', {"Content-Type": "text/plain"}),
    "damaged base64": _forced("data:image/png;base64,@@@@"),
    "empty picture": _forced("data:image/png;base64,"),
    "remote picture": _forced("http://169.254.169.254/latest/meta-data"),
    "no picture where one must be": _forced("just words"),
    "10 MB of text": _value({"input": "a " * 5_000_000}),
    "bad UTF-8": _body(b'{"input": "\xff\xfe\xc3("}'),
    "lone surrogate": _body(rb'{"input": "\ud800"}'),
    "NaN": _body(b'{"input": [NaN]}'),
    "infinity": _body(b'{"input": "a", "dimensions": Infinity}'),
    "deep JSON": _body(b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "half of JSON": _body(b'{"input": "hello'),
    "no body": _body(b""),
    "array as body": _value([]),
    "empty list": _value({"input": []}),
    "empty text": _value({"input": "  "}),
    "number as text": _value({"input": [1, 2.5, None]}),
    "unknown field": _value({"input": "a", "imput": "b"}),
    "unknown model": _value({"input": "a", "model": "gpt-9"}),
    "unfit dimensions": _value({"input": "a", "dimensions": 7}),
    "too many texts": _value({"input": ["a"] * 5000}),
    "too many pictures": _value({"input": [data_url(png(1, 1))] * 70}),
    "broken form": _body(b"--x\r\nnonsense", {"Content-Type": "multipart/form-data; boundary=x"}),
    "form without boundary": _body(b"abc", {"Content-Type": "multipart/form-data"}),
    "unknown path": _body(b"{}", path="/v1/nothing"),
    "body larger than allowed": _declares_too_much,
    "no HTTP": _no_http,
    "leaves inside the body": _leaves_inside_the_body,
    "leaves before the answer": _leaves_before_the_answer,
    "leaves with a reset": _leaves_with_a_reset,
}
