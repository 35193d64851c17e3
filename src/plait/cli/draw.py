"""``plait draw``: pictures of a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, table


def draw(
    run: Annotated[Path, typer.Argument(help="A run that was trained to draw.")],
    text: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[
        Path, typer.Option(help="A contact sheet (.png), or a folder for it and every picture.")
    ],
    n: Annotated[int, typer.Option("-n", help="How many pictures.")] = 8,
    temperature: Annotated[
        float, typer.Option(help="Below 1 for likelier codes, 0 for the likeliest alone.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(help="Draw each cell among the k likeliest codes.")
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="Above 1 to follow the text more closely, at twice the time.")
    ] = 1.0,
    prime: Annotated[
        Path | None, typer.Option(help="A picture whose upper part is kept and completed.")
    ] = None,
    prime_rows: Annotated[
        int | None, typer.Option(help="So many rows of its codes (default: half).")
    ] = None,
    rerank: Annotated[
        Path | None,
        typer.Option(help="An alignment run: it orders the pictures by how well they fit."),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="With --rerank: draw so many and keep the best -n.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same pictures.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw pictures of a text."""
    from plait import api

    api.tune_process()
    found = api.draw(
        run,
        text,
        n,
        out=out,
        temperature=temperature,
        top_k=top_k,
        guidance=guidance,
        prime=prime,
        prime_rows=prime_rows,
        rerank=rerank,
        candidates=candidates,
        seed=seed,
    )

    def page() -> None:
        rows = [
            (
                place,
                one["number"],
                "–" if one["score"] is None else f"{one['score']:.3f}",
                one["path"] or "",
            )
            for place, one in enumerate(found["pictures"], 1)
        ]
        table("", ["", "drawn", "cosine", "picture"], rows)
        typer.echo(f"contact sheet: {found['sheet']}")

    emit(found, as_json, page)
