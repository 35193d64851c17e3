"""``plait compress``: a smaller and faster artefact of a run, within a tolerance of recall."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import (
    EncodingOption,
    JsonOption,
    OutsideOption,
    RootOption,
    emit,
    say,
    table,
    tell_cautions,
)


def compress(
    run: Annotated[Path, typer.Argument(help="A run folder, or a published checkpoint's folder.")],
    out: Annotated[
        Path, typer.Option(help="What to make: a bundle, or a run folder with --int8 none.")
    ],
    int8: Annotated[
        str,
        typer.Option(
            help="nncf (OpenVINO), onnx (ONNX Runtime), none, or auto: what is installed."
        ),
    ] = "auto",
    student: Annotated[
        list[str] | None,
        typer.Option(
            help="Teach a student: an encoder for its tower (pkg/efficientnet-lite0, "
            "text=scratch/transformer), or a recipe (repeatable)."
        ),
    ] = None,
    prune: Annotated[
        list[float] | None,
        typer.Option(help="Take this share of each tower's multiply-adds out (repeatable)."),
    ] = None,
    max_recall_drop: Annotated[
        float, typer.Option(help="Points of recall@1 that may be lost on the validation split.")
    ] = 1.0,
    data: Annotated[
        str | None, typer.Option(help="Pairs in place of those that the run was trained on.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Training samples to calibrate int8 with.")] = 200,
    heal_steps: Annotated[
        int, typer.Option(help="Updates of a pruned model under the run as its teacher.")
    ] = 200,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change the recipe that trains a student or heals: "
            "--set model.towers.image.options.size=192 (repeatable).",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of inference (default: one a core).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of draws and intervals.")] = 0,
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quantise, prune or distil a run: the smallest artefact within tolerance, with a report."""
    from plait import api

    api.tune_process()
    result = api.compress(
        run,
        out=out,
        int8=int8,
        students=student or (),
        prune=prune or (),
        max_recall_drop=max_recall_drop,
        data=data,
        samples=samples,
        heal_steps=heal_steps,
        overrides=settings or (),
        threads=threads,
        seed=seed,
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
        tell=lambda line: say(f"[dim]{line}[/]"),
    )

    def page() -> None:
        from plait.compression.report import rows

        table(f"{run}: {result['candidate']}", ["", "before", "after", "ratio"], rows(result))
        typer.echo(f"recall@1 lost: {result['lost']['points']:.2f} points")
        tell_cautions(result)
        typer.echo(f"out: {out}")
        typer.echo(f"report: {out}/compression.md")

    emit(result, as_json, page)
