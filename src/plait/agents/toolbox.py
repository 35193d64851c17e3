"""A connection to a server of the Model Context Protocol: in process, by URL, or by command."""

from __future__ import annotations

import asyncio
import base64
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from mcp import Client, MCPError, StdioServerParameters
from mcp.server.lowlevel import Server
from mcp.types import CallToolResult, ImageContent, TextContent

from plait.agents.pictures import Picture
from plait.core.errors import UserError


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

    def faults(self, arguments: Mapping[str, Any]) -> list[str]:
        """What is wrong with arguments, one sentence each."""
        found = []
        for error in Draft202012Validator(dict(self.schema)).iter_errors(dict(arguments)):
            place = ".".join(map(str, error.absolute_path))
            found.append(f"{place}: {error.message}" if place else error.message)
        return found


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
    """The tools of a connected server."""

    def __init__(self, client: Client, tools: Mapping[str, ToolSpec]) -> None:
        self._client, self.tools = client, tools

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolReply:
        """Calls a tool; errors of the tool or the connection come back as a reply."""
        try:
            result = await self._client.call_tool(name, dict(arguments))
        except MCPError as error:
            return ToolReply(f"the call failed: {error}", failed=True)
        return reply_of(name, result)


def reply_of(name: str, result: CallToolResult) -> ToolReply:
    """A result of the protocol: its texts joined, its pictures decoded, other kinds named."""
    texts: list[str] = []
    pictures: list[Picture] = []
    for part in result.content:
        if isinstance(part, TextContent):
            texts.append(part.text)
        elif isinstance(part, ImageContent):
            caption = f"picture {len(pictures)} of the result of {name}"
            pictures.append(Picture(base64.b64decode(part.data), part.mime_type, caption))
        else:
            texts.append(f"[a part of type {part.type}, which is not shown]")
    return ToolReply("\n".join(texts), tuple(pictures), bool(result.is_error))


@asynccontextmanager
async def connected(server: Server[Any] | str, *, seconds: float) -> AsyncIterator[Toolbox]:
    """Connects to a server and lists its tools.

    Args:
        server: one in this process, a URL (``http://127.0.0.1:8000/mcp``), or a command whose stdin
            and stdout talk.
        seconds: until the tools must be listed.

    Raises:
        ServerError: it cannot be reached, or lists no tools.
    """
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        # Nothing is raised in here: the transports would wrap it into groups.
        try:
            async with asyncio.timeout(seconds):
                client = await stack.enter_async_context(Client(_target(server)))
                toolbox = Toolbox(client, await _listed(client))
            if not toolbox.tools:
                failure = ServerError(f"the MCP server {_name(server)!r} has no tools")
        except UserError as error:
            failure = error
        except Exception as error:  # the transports raise almost anything
            failure = ServerError(
                f"cannot reach the MCP server {_name(server)!r}: {_innermost(error)}; does it run, "
                "and does a URL end in its path, such as /mcp?"
            )
        if failure is None:
            try:
                yield toolbox
            except Exception as error:
                failure = error
    if failure is not None:
        raise failure


async def _listed(client: Client) -> dict[str, ToolSpec]:
    tools, cursor = {}, None
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            tools[tool.name] = ToolSpec(tool.name, tool.description or "", tool.input_schema)
        cursor = page.next_cursor
        if cursor is None:
            return tools


def _target(server: Server[Any] | str) -> Any:
    if not isinstance(server, str) or server.startswith(("http://", "https://")):
        return server
    words = shlex.split(server)
    if not words:
        raise UserError("--server is empty: give a URL or a command")
    return StdioServerParameters(command=words[0], args=words[1:])


def _name(server: Server[Any] | str) -> str:
    return server if isinstance(server, str) else server.name


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
