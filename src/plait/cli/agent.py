"""``plait agent``: a language model solves a task with trained models as its tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, say
from plait.core.errors import DataError, UserError


def agent(
    task: Annotated[str, typer.Argument(help="What to do, in words.")],
    endpoint: Annotated[
        str, typer.Option(help="OpenAI-compatible base URL: http://127.0.0.1:8080/v1")
    ],
    model: Annotated[str, typer.Option(help="The language model's name there.")],
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture that the task is about (repeatable).")
    ] = None,
    mcp_run: Annotated[
        list[Path] | None, typer.Option(help="A run folder whose model is a tool (repeatable).")
    ] = None,
    index: Annotated[
        list[Path] | None, typer.Option(help="An index to search (repeatable).")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Instead: an MCP server, as a URL or a command in quotes."),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder whose pictures the tools may read (repeatable)."),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds the endpoint's key.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Turns of the language model.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the whole run.")] = 120.0,
    call_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds in which a tool must answer.")
    ] = 60.0,
    show_images: Annotated[
        bool, typer.Option(help="Also send the pictures to the model, if it takes any.")
    ] = False,
    transcript: Annotated[
        Path | None, typer.Option(help="A Markdown file for what was done.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let a language model solve a task with your models as its tools. Exit code 1: no answer."""
    from rich.markup import escape

    from plait import api
    from plait.agents import require_extra

    if (server is None) == (not mcp_run and not index):
        raise UserError("give --mcp-run RUN (and --index INDEX), or --server, one of the two")
    require_extra("plait agent")
    for path in image or []:
        if not path.is_file():
            raise DataError("no such picture (--image)", path=path)
    api.tune_process()
    from plait.agents.agent import Limits
    from plait.agents.endpoint import Endpoint
    from plait.agents.work import work

    chat = Endpoint(endpoint, model, api_key_env=api_key_env)
    if server is None:  # torch loads only where models do
        from plait.agents.served import serve
        from plait.agents.server import build_server

        tools = build_server(serve(mcp_run or [], index or [], roots=root or [Path()]))
    record = work(
        task,
        image or [],
        tools if server is None else server,
        chat,
        limits=Limits(steps=max_steps, seconds=timeout, call_seconds=call_timeout),
        transcript=transcript,
        show_pictures=show_images,
        tell=lambda line: say(escape(line)),
    )

    def page() -> None:
        if record.status == "answered":
            typer.echo(record.answer)  # cleaned where it came in

    emit(record.to_json(), as_json, page)
    if record.status != "answered":
        say(f"[yellow]no answer[/]: {escape(record.reason)}")
        raise typer.Exit(1)
