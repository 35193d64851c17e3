"""``plait index``: a searchable index of the user's pictures; rows can be added and deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from plait.cli.output import EncodingOption, JsonOption, OutsideOption, RootOption, emit, say

SYNCED = ("added", "changed", "moved", "deleted", "unchanged", "skipped", "rows")
"""What --sync gives as JSON: scripts know these names."""


def index(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        str | None, typer.Argument(help="Pairs, or a folder of pictures without texts.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The index folder to make or to add to.")] = Path(
        "index"
    ),
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="Add to an index that exists; rows of the same pictures or ids are replaced.",
        ),
    ] = False,
    sync: Annotated[
        bool,
        typer.Option(
            "--sync",
            help="Make the index be this data: embed what is new or changed, drop what is gone.",
        ),
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty",
            help="With --sync: go on although the data holds none of the index's pictures.",
        ),
    ] = False,
    delete: Annotated[
        list[str] | None,
        typer.Option(
            help="Delete the row of this id, or of the picture at this path (repeatable)."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "all",
    on_bad_row: Annotated[str, typer.Option(help="fail or skip (counted).")] = "fail",
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an index of pictures, or change one."""
    from plait import api

    api.tune_process()
    result = api.index(
        run,
        data,
        out,
        add=add,
        sync=sync,
        delete=delete or (),
        split=split,
        on_bad_row=on_bad_row,
        root=root,
        allow_outside=allow_outside,
        allow_empty=allow_empty,
        encoding=encoding,
    )
    names = ("added", "changed", "moved", "replaced", "deleted", "unchanged", "skipped")
    counts = ", ".join(f"{result[name]} {name}" for name in names if name in result)
    line = f"{result['rows']} rows in {result['out']} ({counts})"

    def page() -> None:
        for note in result["notes"]:
            typer.echo(f"note: {note['message']}")
        typer.echo(line)

    if sync and as_json:
        for note in result["notes"]:
            say(f"[yellow]note:[/] {escape(note['message'])}")
    emit({name: result[name] for name in SYNCED} if sync else result, as_json, page)
