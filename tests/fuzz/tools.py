"""Targets of agents: arguments that a language model wrote, and what a server of tools returns."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from mcp.types import CallToolResult
from pydantic import ValidationError
from tests.fuzz.kinds import MIB, Target
from tests.fuzz.seeds import picture

from plait.agents import schemas
from plait.agents.checking import unfit
from plait.agents.toolbox import reply_of
from plait.core.base64 import from_base64
from plait.core.errors import UserError
from plait.core.foreign import bounded_json, clean, one_line
from plait.data.base.inline import data_url, kind_within

_ARGUMENTS = (
    schemas.SearchIn,
    schemas.ClassifyIn,
    schemas.SimilarityIn,
    schemas.AskIn,
    schemas.CaptionIn,
    schemas.DrawIn,
)


def exchange(data: bytes) -> None:
    """The first byte: ``r`` a result, ``s`` a schema, ``b`` a string that may be a picture, a digit
    the tool whose arguments follow as JSON.
    """
    if data[:1] == b"b":
        _string(data[1:].decode("utf-8", "surrogateescape"))
        return
    try:
        value = json.loads(data[1:])
    except (ValueError, RecursionError):
        return
    try:
        if data[:1] == b"s":
            assert isinstance(unfit(value), str | None)
        elif data[:1] == b"r":
            reply = reply_of("tool", CallToolResult.model_validate(value))
            reply.text.encode()
        else:
            made = _ARGUMENTS[data[0] % 8 % len(_ARGUMENTS)].model_validate(value)
            made.model_dump_json()
    except ValidationError:
        pass  # what the library of the protocol refuses


def _string(text: str) -> None:
    url, kind = data_url(text), kind_within(text)
    assert kind is None or isinstance(kind, str)
    with suppress(ValueError):  # what it is documented to raise
        from_base64(text if url is None or url.start is None else text[url.start :], url=True)
    clean(text).encode()
    assert "\n" not in one_line(text, 100)
    with suppress(ValueError):
        bounded_json(text, most=5000)


def exchanges() -> list[bytes]:
    """Of each kind one."""
    import base64

    image = base64.b64encode(picture(size=1)).decode()
    result = {
        "content": [
            {"type": "text", "text": "found"},
            {"type": "image", "data": image, "mimeType": "image/png"},
            {"type": "resource_link", "uri": "file:///x", "name": "x"},
        ],
        "structuredContent": {"a": 1},
        "isError": False,
    }
    values: list[tuple[bytes, Any]] = [
        (b"r", result),
        (b"r", {"content": [], "structuredContent": {"a": [1, None]}}),
        (b"0", {"query": "a cat", "k": 3, "where": "split = 'test'"}),
        (b"1", {"images": ["cat.png"], "labels": ["a", "b"], "templates": ["{}"]}),
        (b"2", {"images": [f"data:image/png;base64,{image}"], "texts": ["a"]}),
        (b"3", {"image": "cat.png", "question": "what?", "answers": 2}),
        (b"4", {"images": ["cat.png"]}),
        (b"5", {"text": "a cat", "n": 2, "temperature": 0.5, "top_k": 3, "seed": 1}),
    ]
    strings = [f"bdata:image/png;base64,{image}", f"b{image}", "b'iVBORw0KGgo='", 'b{"a": [1e5]}']
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/b"}, "c": {"type": "string", "pattern": "^a+$"}},
        "$defs": {"b": {"type": "integer", "minimum": 1}},
        "required": ["a"],
    }
    values.append((b"s", schema))
    return [text.encode() for text in strings] + [
        kind + json.dumps(value).encode() for kind, value in values
    ]


TARGETS = (
    Target(
        "agents",
        exchange,
        exchanges,
        (UserError,),
        words=(
            b"content",
            b"image",
            b"text",
            b"data",
            b"mimeType",
            b"\\ud800",
            b"structuredContent",
        )
        + (b"resource", b"blob", b"null", b"NaN", b"1e999", b"[[[["),
        longest=8192,
        memory=96 * MIB,
    ),
)
