"""``plait train``: a recipe and the user's data become a run folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from plait.cli.output import (
    EncodingOption,
    JsonOption,
    OutsideOption,
    RootOption,
    answer_table,
    classes_table,
    emit,
    retrieval_table,
    say,
    table,
    tell_cautions,
)


class Resume(StrEnum):
    """Values of ``--resume``; without one it means ``stopped``."""

    stopped = "stopped"
    auto = "auto"


class WithResume(TyperCommand):
    """A command whose ``--resume`` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Writes the value out where it is left out."""
        following = [*args[1:], ""]
        written = [
            f"{one}={Resume.stopped}" if one == "--resume" and after not in list(Resume) else one
            for one, after in zip(args, following)
        ]
        return super().parse_args(ctx, written)


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, or a built-in name (see `plait recipes`).")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder or file of pairs, or a catalogue name (see `plait data list`)."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="What to fine-tune (recipe finetune-clip): the folder of a CLIP or SigLIP in "
            "transformers' or open_clip's format, OWNER/NAME on the model hub, or a run."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one value: --set stages.0.epochs=20 (repeatable)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder to make (default: runs/RECIPE-TIME).")
    ] = None,
    resume: Annotated[
        Resume | None,
        typer.Option(
            help="Go on where the run in --out was stopped. --resume auto: begin it where nothing is "
            "yet, and show the result of a finished one, so that the same command can always be given "
            "again.",
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="wandb or mlflow: send the curves there too (repeatable); tensorboard is always "
            "written, into the run folder's events/."
        ),
    ] = None,
    on_bad_row: Annotated[
        str | None,
        typer.Option(
            help="fail: stop at the first bad row; skip: leave bad rows out and count them."
        ),
    ] = None,
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model on pairs, evaluate it, and write a report."""
    from plait import api
    from plait.evaluation.report.finetuning import tables as finetuning_tables

    api.tune_process()
    overrides = list(settings or [])
    if on_bad_row is not None:
        overrides.append(f"data.on_bad_row={on_bad_row}")
    result = api.train(
        recipe,
        data=data,
        model=model,
        overrides=overrides,
        out=out,
        resume="auto" if resume is Resume.auto else resume is Resume.stopped,
        log=log or (),
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
    )
    if result is None:  # a helper process of `torchrun`: the first one speaks
        return

    def page() -> None:
        from plait.data.base.notes import Note

        if result.get("retrieval"):
            retrieval_table(result["retrieval"], f"Retrieval, {result['split']} split")
            classes_table(result, f"Classification, {result['split']} split")
            for found in finetuning_tables(result):
                table(found.title, found.heads, found.rows)
        elif result.keys() & {"vqa", "classification", "match", "captions", "reconstruction"}:
            answer_table(result, f"{result['split']} split")
        tell_cautions(result)
        for note in result.get("notes", ()):
            if isinstance(note, Note):  # of files; the report has them all
                typer.echo(f"note: {note}")
        skipped = result.get("skipped", 0)
        if skipped:
            say(f"[yellow]{skipped} bad rows were skipped[/]; see `plait data audit`.")
        run = result["run"]
        typer.echo(f"run: {run}")
        typer.echo(f"report: {run}/report.html")
        typer.echo("next:")
        if "reconstruction" in result:
            typer.echo(f'  plait draw {run} "words" --out sheet.png')
            return
        if result.keys() & {"vqa", "classification", "match", "captions"}:
            if "captions" in result:
                typer.echo(f"  plait caption {run} PICTURE")
            if "vqa" in result:
                typer.echo(f'  plait ask {run} PICTURE "question"')
            if "match" in result:
                typer.echo(f'  plait search INDEX "words" --rerank {run}')
            return
        typer.echo(f"  plait index {run} {data or 'PATH'} --out {run}/index")
        typer.echo(f'  plait search {run}/index "words"')

    emit(result, as_json, page)
