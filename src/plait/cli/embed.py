"""``plait embed``: vectors of the user's data in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import EncodingOption, JsonOption, OutsideOption, RootOption, emit


def embed(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[str, typer.Argument(help="Pairs, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="The file to write: .npz or .parquet.")],
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "all",
    on_bad_row: Annotated[str, typer.Option(help="fail or skip (counted).")] = "fail",
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the unit vectors of pictures and texts to a file."""
    from plait import api

    api.tune_process()
    result = api.embed(
        run,
        data,
        out,
        split=split,
        on_bad_row=on_bad_row,
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
    )
    line = "{images} images and {texts} texts, {dim} numbers each -> {out}".format(**result)
    emit(result, as_json, lambda: typer.echo(line))
