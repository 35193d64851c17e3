"""``plait export``: a trained model as a bundle that runs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, say, table


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a published checkpoint's folder.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    name: Annotated[
        str | None, typer.Option(help="Of the model, on its card (default: the run's).")
    ] = None,
    parity: Annotated[
        str,
        typer.Option(
            help="How much is compared with torch: full is every batch at every text length, "
            "quick fewer of them."
        ),
    ] = "quick",
    as_json: JsonOption = False,
) -> None:
    """Write ONNX graphs, preprocessing, model card and parity report: all a service needs."""
    from plait import api

    api.tune_process()
    result = api.export(run, out, name=name, parity=parity, tell=say)

    def page() -> None:
        rows = [
            (
                row["tower"],
                f"{row['engine']} {row['precision']}",
                f"{row['difference']:.1e}",
                f"{row['least_cosine']:.6f}",
                f"{row['cobatch_cosine']:.1e}",
            )
            for row in result["parity"]
        ]
        header = ["tower", "engine", "difference to torch", "least cosine", "drift among others"]
        table("Parity", header, rows)
        typer.echo(f"{result['bytes'] / 1e6:.1f} MB -> {result['out']}")

    emit(result, as_json, page)
