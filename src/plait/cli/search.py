"""``plait search``: words or a picture in, the nearest pictures out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from plait.cli.asked import SERVER, ask_server
from plait.cli.output import JsonOption, emit, say, table
from plait.core.errors import UserError


def search(
    index: Annotated[
        str | None,  # a path would lose signs of what may be words
        typer.Argument(help="An index made by `plait index`; none with a server."),
    ] = None,
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
    server: Annotated[
        str | None,
        typer.Option(
            help="Ask the index of a running `plait serve`, whose models are loaded already. "
            "Without an index PLAIT_SERVER is asked; PLAIT_API_KEY is the key."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search an index by words (in any language the model knows) or by a picture."""
    words_alone = query is None and image is None
    asked = server or (os.environ.get(SERVER) if words_alone or index is None else None)
    if asked and words_alone and index is not None:
        index, query = None, index
    if asked:
        if index is not None or run or sheet or rerank:
            raise UserError(
                "a server searches its own index, and shows no files: with --server give words or "
                "--image, -k and --where alone"
            )
        _show(ask_server(asked, query, image, k=k, where=where), as_json, None, rerank=False)
        return
    if index is None:
        raise UserError(
            "name an index made by `plait index`, or a running server (--server, PLAIT_SERVER)"
        )
    from plait import api

    if rerank is not None:  # else one query, for which starting over costs more than it gains
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
    if hits.gone:
        from plait.retrieval.index.gone import gone_note

        say(f"[yellow]note:[/] {gone_note(hits.gone)}")
    outside = sum(hit["outside"] for hit in hits)
    if sheet is not None and outside:
        say(
            f"{outside} pictures lie outside the folders that you made the index from, and are not "
            "drawn: state their folder (--root FOLDER), or --allow-outside"
        )
    _show(hits, as_json, sheet, rerank=rerank is not None)


def _show(hits: list[dict[str, Any]], as_json: bool, sheet: Path | None, *, rerank: bool) -> None:
    for note in dict.fromkeys(hit["note"] for hit in hits if "note" in hit):
        say(f"[yellow]note:[/] {escape(note)}")

    def page() -> None:
        heads = ["", "score", *(["match"] if rerank else []), "text", "picture"]
        rows = []
        for place, hit in enumerate(hits, 1):
            match = [f"{hit['match']:.2f}"] if rerank else []
            shown = hit["path"] or hit["id"]
            rows.append((place, f"{hit['score']:.3f}", *match, hit["text"] or "", shown))
        table("", heads, rows)
        if sheet is not None:
            say(f"contact sheet: {sheet}")

    emit(hits, as_json, page)
