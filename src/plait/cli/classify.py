"""``plait classify``: pictures against the user's own labels, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, table


def classify(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    labels: Annotated[str, typer.Option(help="Labels with commas between them: cat,dog,bird")],
    template: Annotated[
        list[str] | None,
        typer.Option(help="A prompt with {} for the label; several are averaged (repeatable)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which of your labels fits each picture best."""
    from plait import api

    api.tune_process()
    names = [label.strip() for label in labels.split(",") if label.strip()]
    found = api.classify(run, images, names, templates=template or ("{}",))

    def page() -> None:
        rows = [
            (
                entry["path"],
                ", ".join(f"{s['label']} {s['probability']:.2f}" for s in entry["labels"][:3]),
            )
            for entry in found
        ]
        table("", ["picture", "labels"], rows)

    emit(found, as_json, page)
