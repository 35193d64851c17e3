"""``plait mcp``: trained models as tools of the Model Context Protocol."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import say


class Transport(StrEnum):
    """How clients talk to the server."""

    stdio = "stdio"
    http = "http"


def mcp(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders.")] = None,
    index: Annotated[
        list[Path] | None, typer.Option(help="An index to search (repeatable).")
    ] = None,
    transport: Annotated[
        Transport, typer.Option(help="stdio: started by its one client. http: streamable HTTP.")
    ] = Transport.stdio,
    host: Annotated[str, typer.Option(help="The address to bind, for http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8765,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder whose pictures the tools may read (repeatable); the working directory."
        ),
    ] = None,
) -> None:
    """Serve trained models as tools for a language model: search, classify, ask and what else they can."""
    from plait import api
    from plait.agents import require_extra

    require_extra("plait mcp")
    api.tune_process()
    with redirect_stdout(sys.stderr):  # stdout belongs to the protocol
        from plait.agents.served import serve
        from plait.agents.server import build_server, serve_http, serve_stdio

        served = serve(runs or [], index or [], roots=root or [Path()])
        server = build_server(served)
    say(f"tools: {', '.join(served.tools)}")
    if transport is Transport.stdio:
        serve_stdio(server)
    else:
        serve_http(server, host, port, tell=lambda url: say(f"serving at {url}"))
