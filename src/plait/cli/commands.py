"""The commands of ``plait``, collected. What runs one is `plait.cli.main`."""

from __future__ import annotations

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
app.command("train", cls=train.WithResume, rich_help_panel=MAIN)(train.train)
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
        from plait.core.version import __version__

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
