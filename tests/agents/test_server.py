"""A real client of the protocol lists and calls every tool, over both transports."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent
from PIL import Image
from tests.agents.conftest import Tiny

PLAIT = str(Path(sys.executable).with_name("plait"))


def served(tiny: Tiny, *more: str) -> list[str]:
    runs = ["mcp", str(tiny.finder), str(tiny.teller), "--index", str(tiny.index)]
    return [*runs, "--root", str(tiny.pictures), *more]


@asynccontextmanager
async def over_stdio(tiny: Tiny) -> AsyncIterator[ClientSession]:
    # The client hands on a minimal environment. The number of threads is the tests' choice, and so is
    # the cache, which holds the key that seals the roots of the tests' index.
    given = {"OMP_NUM_THREADS": "1", "PLAIT_CACHE": os.environ["PLAIT_CACHE"]}
    parameters = StdioServerParameters(command=PLAIT, args=served(tiny), env=given)
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session


@pytest.fixture(scope="module")
def url(tiny: Tiny) -> Any:
    """A server over HTTP, as a user starts it."""
    command = [PLAIT, *served(tiny, "--transport", "http", "--port", "0")]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert server.stderr is not None and server.stdout is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "serving at " in line:
            break
    else:
        raise AssertionError("".join(said))
    reader = threading.Thread(target=lambda: said.extend(server.stderr), daemon=True)
    reader.start()
    yield said[-1].split("serving at ")[1].strip()
    server.terminate()
    server.wait(timeout=20)
    reader.join()
    assert server.stdout.read() == ""
    server.stdout.close()
    server.stderr.close()
    assert not any("Traceback" in line for line in said), "".join(said)


@asynccontextmanager
async def over_http(url: str) -> AsyncIterator[ClientSession]:
    async with streamable_http_client(url) as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        yield session


def picture(result: CallToolResult, place: int) -> Image.Image:
    parts = [part for part in result.content if isinstance(part, ImageContent)]
    return Image.open(io.BytesIO(base64.b64decode(parts[place].data)))


def message(result: CallToolResult) -> str:
    assert result.is_error
    (part,) = result.content
    assert isinstance(part, TextContent)
    return part.text


async def every_tool(session: ClientSession, tiny: Tiny) -> None:
    listed = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert set(listed) == {"search", "classify", "similarity", "ask"}
    assert all(tool.output_schema and tool.description for tool in listed.values())
    assert "run" not in listed["classify"].input_schema["properties"]  # one run can do it
    red, blue = (next(tiny.pictures.glob(f"{name}*.png")) for name in ("red", "blue"))
    inline = "data:image/png;base64," + base64.b64encode(blue.read_bytes()).decode()

    found = await session.call_tool("search", {"query": "a red picture", "k": 3, "thumbnails": 2})
    assert not found.is_error, found
    hits = found.structured_content["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert [hit["picture"] for hit in hits] == [0, 1, None]
    assert isinstance(found.content[0], TextContent)
    assert json.loads(found.content[0].text) == found.structured_content
    shown = picture(found, 1).convert("RGB").getpixel((5, 5))
    held = Image.open(hits[1]["path"]).convert("RGB").getpixel((5, 5))
    assert all(abs(a - b) <= 6 for a, b in zip(shown, held, strict=True))  # JPEG

    same = await session.call_tool("search", {"image": red.name, "k": 1})  # relative to the root
    assert same.structured_content["hits"][0]["score"] == pytest.approx(1, abs=1e-4)

    labels = ["a red picture", "a blue picture"]
    given = {"images": [str(red), inline], "labels": labels}
    classified = (await session.call_tool("classify", given)).structured_content["pictures"]
    for row in classified:
        assert sum(one["probability"] for one in row["labels"]) == pytest.approx(1, abs=1e-4)
        assert row["labels"][0]["probability"] >= row["labels"][1]["probability"]
    cosines = await session.call_tool("similarity", {"images": [str(red), inline], "texts": labels})
    rows = cosines.structured_content["cosines"]
    for row, entry in zip(rows, classified, strict=True):  # the same model, so the same order
        assert labels[row.index(max(row))] == entry["labels"][0]["label"]

    asked = await session.call_tool("ask", {"image": inline, "question": "what colour is it?"})
    assert asked.structured_content["answer"] == "blue"


async def every_error(session: ClientSession, tiny: Tiny) -> None:
    outside = message(await session.call_tool("ask", {"image": "/etc/hostname", "question": "?"}))
    assert "under the allowed folders" in outside and str(tiny.pictures) in outside
    both = message(await session.call_tool("search", {"query": "red", "image": "red_00.png"}))
    assert "one of the two" in both
    wrong = message(await session.call_tool("classify", {"images": ["red_00.png"], "lables": []}))
    assert "labels: Field required" in wrong and "lables: Extra inputs" in wrong
    missing = message(await session.call_tool("serach", {}))
    assert "did you mean 'search'" in missing
    much = message(await session.call_tool("search", {"query": "red", "k": 10_000}))
    assert "less than or equal to 50" in much
    bad = message(await session.call_tool("search", {"query": "red", "where": "nothing = 1"}))
    assert "nothing" in bad
    fine = await session.call_tool("search", {"query": "red", "k": 1})  # it lives on
    assert not fine.is_error
    many = await asyncio.gather(
        *(session.call_tool("search", {"query": "blue", "k": 1}) for _ in range(4))
    )
    assert len({json.dumps(one.structured_content) for one in many}) == 1


def within(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(seconds):
            await work()

    asyncio.run(run())


def test_over_stdio(tiny: Tiny) -> None:
    async def work() -> None:
        async with over_stdio(tiny) as session:
            await every_tool(session, tiny)
            await every_error(session, tiny)

    within(250.0, work)


def test_over_http(tiny: Tiny, url: str) -> None:
    async def work() -> None:
        async with over_http(url) as session:
            await every_tool(session, tiny)
            await every_error(session, tiny)

    within(250.0, work)


def test_http_refuses_other_hosts(url: str) -> None:
    """A page whose name was rebound to this machine sends its own name along."""
    import http.client
    from urllib.parse import urlsplit

    place = urlsplit(url)
    for headers, code in (
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
    ):
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        sent = {"Content-Type": "application/json", **headers}
        connection.request("POST", place.path, body="{}", headers=sent)
        assert connection.getresponse().status == code
        connection.close()
