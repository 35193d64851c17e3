"""The tools over the Model Context Protocol, by the official package: stdio and streamable HTTP."""

from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Callable
from typing import Any

import anyio
import uvicorn
from anyio import to_thread
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from plait.agents.pictures import MAX_BYTES
from plait.agents.served import BadArguments, Served, ServedTool
from plait.core.errors import UserError, did_you_mean
from plait.core.version import __version__

PATH = "/mcp"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REQUEST_BYTES = 3 * MAX_BYTES  # a picture in base64 is a third larger than its file

log = logging.getLogger(__name__)


def build_server(served: Served) -> Server[Any]:
    """A server of the tools; run it with `serve_stdio` or `serve_http`, or connect in process."""

    async def list_tools(context: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[described(tool) for tool in served.tools.values()])

    async def call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
        name, given = params.name, params.arguments or {}
        if name not in served.tools:
            known = ", ".join(served.tools)
            return failure(f"there is no tool {name!r}{did_you_mean(name, served.tools)} ({known})")
        try:
            answer = await to_thread.run_sync(served.call, name, given, abandon_on_cancel=True)
        except BadArguments as error:
            return failure(f"wrong arguments for {name}: {error}")
        except UserError as error:
            return failure(str(error))
        except Exception as error:  # the server outlives its own faults
            log.exception("the tool %s failed", name)
            return failure(f"{name} failed inside plait ({type(error).__name__}); see its log")
        structured = answer.result.model_dump(mode="json")
        pictures = [
            ImageContent(
                type="image",
                data=base64.b64encode(picture.data).decode("ascii"),
                mime_type=picture.mime,
            )
            for picture in answer.pictures
        ]
        text = TextContent(type="text", text=answer.result.model_dump_json())
        return CallToolResult(content=[text, *pictures], structured_content=structured)

    return Server(
        "plait",
        version=__version__,
        instructions="Trained multimodal models: they look at pictures and find, name or answer.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def described(tool: ServedTool) -> Tool:
    """The tool as the protocol lists it."""
    names = ", ".join(tool.subjects)
    return Tool(
        name=tool.capability.name,
        description=f"{tool.capability.about} Served by: {names}.",
        input_schema=tool.arguments.model_json_schema(),
        output_schema=tool.capability.result.model_json_schema(mode="serialization"),
        annotations=ToolAnnotations(
            read_only_hint=True, destructive_hint=False, open_world_hint=False
        ),
    )


def failure(message: str) -> CallToolResult:
    """A tool's error: the model that called reads it and can do better."""
    return CallToolResult(content=[TextContent(type="text", text=message)], is_error=True)


def serve_stdio(server: Server[Any]) -> None:
    """Serves one client on stdin and stdout until stdin ends."""

    async def run() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(run)


def serve_http(
    server: Server[Any], host: str, port: int, *, tell: Callable[[str], None] = lambda url: None
) -> None:
    """Serves clients over streamable HTTP until it is stopped.

    Args:
        server: of `build_server`.
        host: the address to bind.
        port: 0 for a free one.
        tell: is told the URL when it can be reached.

    Raises:
        UserError: the address cannot be bound, or stands for every address of the machine.
    """
    if host in ("", "0.0.0.0", "::"):
        raise UserError(
            f"--host {host!r} stands for every address, and there is no log-in: name the one "
            "address that clients use, or keep 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot serve at {host}, port {port}: {error}") from error
    name = f"[{host}]" if family == socket.AF_INET6 else host
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        host=host,
        max_request_body_size=_REQUEST_BYTES,
        transport_security=None if host in LOOPBACK else _only(name),
    )
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
    with bound:
        tell(f"http://{name}:{bound.getsockname()[1]}{PATH}")
        uvicorn.Server(config).run(sockets=[bound])


def _only(host: str) -> TransportSecuritySettings:
    """Requests that name another host, as a page rebound by DNS does, are refused."""
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[f"{host}:*"],
        allowed_origins=[f"http://{host}:*"],
    )
