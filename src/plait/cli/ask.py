"""``plait ask``: a question about a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, table


def ask(
    run: Annotated[
        Path, typer.Argument(help="A run that was trained to answer (plait train easy-vqa).")
    ],
    image: Annotated[Path, typer.Argument(help="A picture.")],
    question: Annotated[str, typer.Argument(help='Words in quotes: "what colour is the shape?"')],
    answers: Annotated[int, typer.Option("-n", min=1, help="List so many answers.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Answer a question about a picture."""
    from plait import api

    api.tune_process()
    found = api.ask(run, image, question, answers=answers)

    def page() -> None:
        typer.echo(found["answer"])
        rows = [(one["answer"], f"{one['probability']:.3f}") for one in found["answers"]]
        table("", ["answer", "probability"], rows)

    emit(found, as_json, page)
