"""``plait search``: words or a picture in, the nearest pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from plait.cli.output import JsonOption, emit, say, table


def search(
    index: Annotated[Path, typer.Argument(help="An index made by `plait index`.")],
    query: Annotated[str | None, typer.Argument(help="Words to look for.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="A picture to look for instead of words.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many results.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="Keep rows that fulfil this, e.g. \"split = 'test'\".")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run folder, if it moved since the index was made.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Also draw the results into this PNG.")] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder whose pictures may be drawn, besides those that you made the index from "
            "(repeatable)."
        ),
    ] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Draw any picture that the index names.")
    ] = False,
    rerank: Annotated[
        Path | None,
        typer.Option(help="A fusion run trained to match: it orders the nearest results anew."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search an index by words (in any language the model knows) or by a picture."""
    from plait import api

    api.tune_process()
    hits = api.search(
        index,
        query,
        image=image,
        k=k,
        where=where,
        run=run,
        sheet=sheet,
        rerank=rerank,
        roots=root or [],
        allow_outside=allow_outside,
    )
    for note in dict.fromkeys(hit["note"] for hit in hits if "note" in hit):
        say(f"[yellow]note:[/] {escape(note)}")
    outside = sum(hit["outside"] for hit in hits)
    if sheet is not None and outside:
        say(
            f"{outside} pictures lie outside the folders that you made the index from, and are not "
            "drawn: state their folder (--root FOLDER), or --allow-outside"
        )

    def page() -> None:
        heads = ["", "score", *(["match"] if rerank is not None else []), "text", "picture"]
        rows = []
        for place, hit in enumerate(hits, 1):
            match = [f"{hit['match']:.2f}"] if rerank is not None else []
            shown = hit["path"] or hit["id"]
            rows.append((place, f"{hit['score']:.3f}", *match, hit["text"] or "", shown))
        table("", heads, rows)
        if sheet is not None:
            say(f"contact sheet: {sheet}")

    emit(hits, as_json, page)
