"""A connection to a server of the Model Context Protocol: in process, by URL, or by command.

What such a server lists and returns is bounded and cleaned here, once, before anything else sees it.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mcp import Client, MCPError
from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsRequest,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)

from plait.agents.checking import Checker, unfit
from plait.agents.pictures import MAX_BYTES, Picture
from plait.agents.transports import over_http, over_stdio
from plait.core.base64 import from_base64
from plait.core.errors import UserError, shown
from plait.core.foreign import clean, is_deeper, one_line
from plait.modalities.image.structure import kind_of

MOST_TOOLS, MOST_PAGES = 256, 64
MOST_PARTS = 256  # of a result that are looked at
MOST_PICTURES = 16  # of a result
MOST_TEXT = 1_000_000  # characters of a result
CALL_SECONDS = 60.0
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
_ABOUT = 4000  # characters of a tool's description


class ServerError(UserError):
    """A server of tools that cannot be reached or talked to."""


@dataclass(frozen=True)
class ToolSpec:
    """A tool as a server lists it.

    Attributes:
        name: to call it by.
        about: what it does.
        schema: JSON schema of its arguments.
    """

    name: str
    about: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class ToolReply:
    """What a tool gave back.

    Attributes:
        text: its result or its error.
        pictures: that came with it.
        failed: whether the tool reports an error.
    """

    text: str
    pictures: tuple[Picture, ...] = ()
    failed: bool = False


class Toolbox:
    """The tools of a connected server.

    Args:
        client: connected.
        tools: by name.
        refused: why the others are not used, by name.
        seconds: in which a call must be answered.
    """

    def __init__(
        self,
        client: Client,
        tools: Mapping[str, ToolSpec],
        refused: Mapping[str, str] | None = None,
        *,
        seconds: float = CALL_SECONDS,
    ) -> None:
        self._client, self.tools, self.refused = client, tools, dict(refused or {})
        self._seconds = seconds
        self.checker = Checker()

    async def faults(self, name: str, arguments: Any) -> list[str]:
        """What is wrong with the arguments of a call. Raises CheckFailed."""
        return await self.checker.faults(self.tools[name].schema, arguments)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolReply:
        """Calls a tool; errors of the tool or the connection come back as a reply."""
        params = CallToolRequestParams(name=name, arguments=dict(arguments))
        try:
            async with asyncio.timeout(self._seconds):
                # Not `call_tool`, which checks the result against a schema of the server's, here.
                result = await self._client.session.send_request(
                    CallToolRequest(params=params), CallToolResult
                )
        except TimeoutError:
            return ToolReply(f"{name} did not answer within {self._seconds:g} s", failed=True)
        except MCPError as error:
            return ToolReply(f"the call failed: {one_line(str(error), 500)}", failed=True)
        except Exception as error:  # the transports raise almost anything
            reason = one_line(_innermost(error), 300)
            return ToolReply(
                f"the server of {name} broke off or answered nonsense: {reason}", failed=True
            )
        return reply_of(name, result)


def reply_of(name: str, result: CallToolResult) -> ToolReply:
    """A result of the protocol: its texts joined, its pictures decoded, other kinds named.

    What is too much, and pictures that are none, are left out; the text says so.
    """
    texts: list[str] = []
    pictures: list[Picture] = []
    left = MOST_TEXT
    for part in result.content[:MOST_PARTS]:
        if isinstance(part, TextContent):
            texts.append(clean(part.text[:left]))
            if len(part.text) > left:
                texts.append(f"[{len(part.text) - left:,} more characters are left out]")
            left -= min(left, len(part.text))
        elif not isinstance(part, ImageContent):
            texts.append(f"[a part of type {part.type}, which is not shown]")
        elif len(pictures) == MOST_PICTURES:
            texts.append("[a further picture, which is left out]")
        else:
            caption = f"picture {len(pictures)} of the result of {name}"
            try:
                pictures.append(_picture(part.data, caption))
            except ValueError as error:
                texts.append(f"[a picture that cannot be used: {error}]")
    if len(result.content) > MOST_PARTS:
        texts.append(f"[{len(result.content) - MOST_PARTS:,} more parts are left out]")
    if not result.content and result.structured_content is not None:
        texts.append(_as_text(result.structured_content))
    return ToolReply("\n".join(texts), tuple(pictures), bool(result.is_error))


def _picture(text: str, caption: str) -> Picture:
    """Raises ValueError: too large, damaged, or of no known kind."""
    if len(text) > 2 * MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES / 1e6:g} MB")
    data = from_base64(text)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES / 1e6:g} MB")
    kind = kind_of(data)
    if kind is None:
        raise ValueError("it is of no known kind")
    return Picture(data, f"image/{kind.lower()}", caption)  # whatever type the server names


def _as_text(value: Any) -> str:
    if is_deeper(value, 64):
        return "[a structured result that is nested too deeply]"
    return clean(json.dumps(value, ensure_ascii=False)[:MOST_TEXT])


@asynccontextmanager
async def connected(
    server: Server[Any] | str, *, seconds: float, call_seconds: float = CALL_SECONDS
) -> AsyncIterator[Toolbox]:
    """Connects to a server and lists its tools.

    Args:
        server: one in this process, a URL (``http://127.0.0.1:8000/mcp``), or a command whose stdin
            and stdout talk.
        seconds: until the tools must be listed.
        call_seconds: in which a call must be answered.

    Raises:
        ServerError: it cannot be reached, or lists no tools.
    """
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        # Nothing is raised in here: the transports would wrap it into groups.
        try:
            async with asyncio.timeout(seconds):
                client = await stack.enter_async_context(Client(_target(server)))
                tools, refused = await _listed(client)
            toolbox = Toolbox(client, tools, refused, seconds=call_seconds)
            if not tools:
                why = "".join(f"; {shown(name, 60)}: {one}" for name, one in refused.items())
                failure = ServerError(
                    f"the MCP server {_name(server)!r} has no tools that can be used{why[:600]}"
                )
        except UserError as error:
            failure = error
        except Exception as error:  # the transports raise almost anything
            failure = ServerError(
                f"cannot reach the MCP server {_name(server)!r}: {one_line(_innermost(error), 300)}; does it run, "
                "and does a URL end in its path, such as /mcp?"
            )
        if failure is None:
            try:
                yield toolbox
            except Exception as error:
                failure = error
            finally:
                await toolbox.checker.close()
    if failure is not None:
        raise failure


async def _listed(client: Client) -> tuple[dict[str, ToolSpec], dict[str, str]]:
    """The tools by name, and why others are not used."""
    tools: dict[str, ToolSpec] = {}
    refused: dict[str, str] = {}
    cursor: str | None = None
    seen = 0
    for _ in range(MOST_PAGES):
        params = PaginatedRequestParams(cursor=cursor)
        page = await client.session.send_request(ListToolsRequest(params=params), ListToolsResult)
        for tool in page.tools:
            seen += 1
            if seen > MOST_TOOLS:
                raise ServerError(f"it lists more than {MOST_TOOLS} tools")
            reason = unfit(tool.input_schema)
            if not _NAME.fullmatch(tool.name):
                reason = "its name has other characters than A-Z a-z 0-9 _ . / - or is too long"
            if reason is not None:
                refused[one_line(tool.name, 60)] = one_line(reason, 200)
                continue
            about = clean((tool.description or "")[:_ABOUT])
            tools[tool.name] = ToolSpec(tool.name, about, tool.input_schema)
        cursor = page.next_cursor
        if not cursor:
            return tools, refused
    raise ServerError(f"its list of tools has more than {MOST_PAGES} pages")


def _target(server: Server[Any] | str) -> Any:
    if not isinstance(server, str):
        return server
    if server.startswith(("http://", "https://")):
        return over_http(server)
    words = shlex.split(server)
    if not words:
        raise UserError("--server is empty: give a URL or a command")
    return over_stdio(words)


def _name(server: Server[Any] | str) -> str:
    return server if isinstance(server, str) else server.name


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
