"""``plait caption``: pictures in words."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, table


class Method(StrEnum):
    """How to write."""

    greedy = "greedy"
    beam = "beam"
    sample = "sample"


def caption(
    run: Annotated[Path, typer.Argument(help="A run that was trained to describe pictures.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    prompt: Annotated[
        str | None,
        typer.Option(help='Words in place of those of training: "<image> a picture of"'),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="The likeliest words, the likeliest text found, or a draw.")
    ] = Method.beam,
    longest: Annotated[int, typer.Option(min=1, help="The most new tokens.")] = 32,
    beams: Annotated[int, typer.Option(min=1, help="Beginnings kept by --method beam.")] = 4,
    length_penalty: Annotated[
        float, typer.Option(help="Of beams: above 1 for longer texts.")
    ] = 1.0,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="Of draws: below 1 for likelier words.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Draw among the k likeliest words.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Draw among the fewest words that have p of the chance."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of draws.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Describe pictures in words."""
    from plait import api

    api.tune_process()
    found = api.caption(
        run,
        images,
        prompt=prompt,
        method=method.value,
        longest=longest,
        beams=beams,
        length_penalty=length_penalty,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )

    def page() -> None:
        table("", ["picture", "caption"], [(one["image"], one["caption"]) for one in found])

    emit(found, as_json, page)
