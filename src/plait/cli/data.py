"""``plait data``: what a path holds, what is wrong with it, and other formats for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from plait.cli.output import EncodingOption, JsonOption, OutsideOption, RootOption, emit, table
from plait.core.errors import UserError

app = typer.Typer(help="Look at, check and convert data.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="A folder or file of pairs, or a catalogue name.")]
OnBadRow = Annotated[str, typer.Option(help="fail or skip (counted).")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="Which column is what: --column text=title (repeatable)."),
]


def _mapping(columns: list[str] | None) -> dict[str, str]:
    mapping = {}
    for one in columns or []:
        role, equals, column = one.partition("=")
        if not equals:
            raise UserError(f"--column {one}: write ROLE=COLUMN, such as text=title")
        mapping[role.strip()] = column
    return mapping


@app.command("list")
def list_sets(as_json: JsonOption = False) -> None:
    """List the catalogue of built-in data sets with licence, size and source."""
    from plait.data.open.catalog import CATALOG

    keys = ("name", "title", "licence", "size", "source", "version")
    entries = [{key: getattr(entry, key) for key in keys} for entry in CATALOG.values()]
    emit(entries, as_json, lambda: table("", keys, [list(entry.values()) for entry in entries]))


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A catalogue name, see `plait data list`.")],
    out: Annotated[Path | None, typer.Option(help="Also write it as an image folder here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch or make a built-in data set, so that later commands find it at once."""
    from plait import api

    result = api.get_dataset(name, out)
    line = "{name}: {samples} samples, {texts} texts".format(**result)
    emit(result, as_json, lambda: typer.echo(line))


@app.command("inspect")
def inspect(
    path: Source,
    column: Columns = None,
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a path holds: format, samples, texts, splits, examples."""
    from rich.markup import escape

    from plait.data import inspect as inspect_data

    result = inspect_data(
        path,
        columns=_mapping(column),
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
    )

    def page() -> None:
        table("", ["what", "value"], [(key, escape(value)) for key, value in _described(result)])
        examples = result.get("examples") or []
        if examples:
            header = list(examples[0])
            table(
                "examples",
                header,
                [[escape(_short(row[key])) for key in header] for row in examples],
            )

    emit(result, as_json, page)


@app.command("audit")
def audit(
    path: Source,
    model: Annotated[
        Path | None,
        typer.Option(
            help="A run folder: also judges lengths by its tokenizer and finds mismatches."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the findings as JSON here.")] = None,
    column: Columns = None,
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find unreadable, orphan, empty, over-long, duplicate, leaking and mismatched rows."""
    from plait import api

    report = api.audit(
        path,
        model=model,
        columns=_mapping(column),
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
    )
    if out is not None:
        from plait.core.files import write_json

        write_json(out, report.to_json())
    emit(report.to_json(), as_json, lambda: typer.echo(report.table()))
    if report.errors:
        raise typer.Exit(2)


@app.command("convert")
def convert(
    path: Source,
    out: Annotated[Path, typer.Argument(help="A folder or file that does not exist yet.")],
    to: Annotated[
        str,
        typer.Option(
            help="imagefolder, csv, jsonl, parquet, webdataset, coco, karpathy, flickr8k or llava."
        ),
    ],
    on_bad_row: OnBadRow = "fail",
    column: Columns = None,
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write pairs in another format."""
    from plait import api

    result = api.convert(
        path,
        out,
        to,
        columns=_mapping(column),
        on_bad_row=on_bad_row,
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
    )
    line = "{samples} samples -> {path} ({format})".format(**result)
    if result["lost"]:
        lost = ", ".join(f"{name} of {count}" for name, count in result["lost"].items())
        line += f"; this format cannot say: {lost}"
    emit(result, as_json, lambda: typer.echo(line))


def _described(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What `plait.data.inspect` tells, a row for each note and each bad row."""
    rows = []
    for key, value in result.items():
        if isinstance(value, str | int):
            rows.append((key, str(value)))
        elif key in ("splits", "languages") and value:
            rows.append((key, _counts(value)))
        elif key == "questions" and value:
            rows += [
                (
                    name if name == key else f"  {name}",
                    ", ".join(one) if isinstance(one, list) else str(one),
                )
                for name, one in value.items()
            ]
    rows += [("note", note["message"]) for note in result["notes"]]
    skipped = result["skipped"]
    if skipped["count"]:
        rows.append(("bad rows", f"{skipped['count']}: {_counts(skipped['kinds'])}"))
        rows += [("", f"{one['where']}: {one['problem']}") for one in skipped["first"]]
    return rows


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _short(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"
