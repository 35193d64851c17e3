"""``plait export``: a model as a bundle that runs without torch, or as a folder of the model hub."""

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
    to: Annotated[
        str,
        typer.Option(
            help="bundle: ONNX graphs for `plait serve`; hf-folder: what transformers (or else "
            "open_clip) loads; open-clip: what open_clip loads."
        ),
    ] = "bundle",
    push: Annotated[
        str | None,
        typer.Option(
            help="OWNER/NAME: upload the folder to the model hub too; a new repository is private."
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository of --push public.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write ONNX graphs, preprocessing, model card and parity report: all a service needs.

    With --to hf-folder or open-clip, write the weights as transformers or open_clip load them.
    """
    from plait import api

    if to != "bundle" or push is not None:
        found = api.export_hub(run, out, to=to, name=name, push=push, public=public, tell=say)

        def told() -> None:
            typer.echo(f"{found['bytes'] / 1e6:.1f} MB for {found['loads']} -> {found['out']}")
            if "url" in found:
                typer.echo(f"pushed: {found['url']}")

        emit(found, as_json, told)
        return
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
