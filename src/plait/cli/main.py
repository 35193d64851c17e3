"""The entry point ``plait``: collects the commands and turns exceptions into exit codes."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from plait.cli import (
    agent,
    ask,
    bench,
    caption,
    classify,
    compare,
    compress,
    data,
    demo,
    doctor,
    draw,
    embed,
    evaluate,
    export,
    index,
    mcp,
    recipes,
    search,
    serve,
    train,
)
from plait.cli.output import say
from plait.core.errors import PlaitError
from plait.core.telemetry import switch_off

app = typer.Typer(
    name="plait",
    help="Braids images and texts into one model: train, check, search, ask.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

MAIN, USE, ABOUT = "The main job", "Use a trained model", "About this installation"

app.command("demo", rich_help_panel=MAIN)(demo.demo)
app.add_typer(data.app, name="data", rich_help_panel=MAIN)
app.command("train", rich_help_panel=MAIN)(train.train)
app.command("compare", rich_help_panel=MAIN)(compare.compare)
app.command("evaluate", rich_help_panel=MAIN)(evaluate.evaluate)
app.command("compress", rich_help_panel=USE)(compress.compress)
app.command("index", rich_help_panel=USE)(index.index)
app.command("search", rich_help_panel=USE)(search.search)
app.command("classify", rich_help_panel=USE)(classify.classify)
app.command("ask", rich_help_panel=USE)(ask.ask)
app.command("caption", rich_help_panel=USE)(caption.caption)
app.command("draw", rich_help_panel=USE)(draw.draw)
app.command("embed", rich_help_panel=USE)(embed.embed)
app.command("serve", rich_help_panel=USE)(serve.serve)
app.command("export", rich_help_panel=USE)(export.export)
app.command("bench", rich_help_panel=USE)(bench.bench)
app.command("mcp", rich_help_panel=USE)(mcp.mcp)
app.command("agent", rich_help_panel=USE)(agent.agent)
app.command("recipes", rich_help_panel=ABOUT)(recipes.recipes)
app.command("doctor", rich_help_panel=ABOUT)(doctor.doctor)


def _show_version(value: bool) -> None:
    if value:
        from plait import __version__

        typer.echo(f"plait {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    progress: Annotated[
        bool | None,
        typer.Option(
            "--progress/--no-progress", help="Progress bars on stderr (default: on a terminal)."
        ),
    ] = None,
) -> None:
    from plait.core import progress as bars

    bars.configure(progress)


def main() -> None:
    """Runs one command. Exit codes: 0 done, 2 the input is at fault, 1 plait is at fault."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    switch_off()
    try:
        app(standalone_mode=True)
    except PlaitError as error:
        _report(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("[yellow]stopped[/]")
        sys.exit(130)


def _report(error: PlaitError) -> None:
    """The message on stderr; with ``--json`` also one JSON document on stdout."""
    from rich.markup import escape

    if "--json" in sys.argv:
        report = {"error": {"type": type(error).__name__, "message": str(error)}}
        print(json.dumps(report, ensure_ascii=False))
    say(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}")


if __name__ == "__main__":
    main()
