"""``plait demo``: the main job on real data, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, retrieval_table, table


def demo(
    out: Annotated[Path, typer.Option(help="The folder of the run.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of initial weights and sampling.")] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="Train anew, even if --out holds a finished demo.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Align emoji pictures with their names, check it on unseen ones, and search."""
    from plait import api

    api.tune_process()
    result = api.demo(out, seed=seed, again=again)

    def page() -> None:
        if result["cached"]:
            typer.echo(f"reusing the finished demo in {result['run']} (--again trains anew)")
        for language, figures in result["languages"].items():
            retrieval_table(figures, f"{result['unseen']} unseen emoji, names in {language}")
        seconds = result["seconds"]
        table(
            "Seconds per step of the way",
            ["step", "s"],
            [(k, f"{v:.1f}") for k, v in seconds.items()],
        )
        run = result["run"]
        for name in ("report.html", "sheet.png", "curves.png"):
            typer.echo(f"look at {run}/{name}")
        typer.echo("\nnext, try")
        typer.echo(f'  plait search {run}/index "something to drink"')
        typer.echo(f'  plait search {run}/index "红色的水果" --sheet results.png')
        typer.echo("  plait train align --data YOUR_FOLDER --out runs/mine")

    emit(result, as_json, page)
