"""``plait compare``: the same recipe with one thing exchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import EncodingOption, JsonOption, OutsideOption, RootOption, emit, say, table


def compare(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a built-in name.")],
    over: Annotated[
        str, typer.Option(help="What to exchange: --over model.fusion=concat,late,gated")
    ],
    data: Annotated[
        str | None, typer.Option(help="A folder or file, or a catalogue name (plait data list).")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one value in all runs (repeatable)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the runs and the table (default: runs/compare-RECIPE-TIME). "
            "Runs that are finished in it are reused, a stopped one goes on."
        ),
    ] = None,
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe once for each value of one setting; one table and chart of all."""
    from plait import api

    api.tune_process()
    found = api.compare(
        recipe,
        over,
        data=data,
        out=out,
        overrides=list(settings or []),
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
        tell=say,
    )
    if found is None:  # a helper process of `torchrun`: the first one speaks
        return

    def page() -> None:
        rows = []
        for row in sorted(found["rows"], key=lambda row: -row["quality"]):
            between = "" if row["low"] is None else f" ({row['low']:.1f} to {row['high']:.1f})"
            rows.append(
                (
                    row["value"],
                    f"{row['quality']:.2f}{between}",
                    f"{row['parameters']:,}",
                    f"{row['step_ms']:.1f}",
                    f"{row['latency_ms']:.1f}",
                )
            )
        measure = found["rows"][0]["measure"]
        table("", ["value", measure, "parameters", "one update, ms", "one answer, ms"], rows)
        typer.echo(f"table: {found['out']}/compare.md")
        typer.echo(f"chart: {found['out']}/compare.png")

    emit(found, as_json, page)
