"""``plait evaluate``: metrics of a run with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import (
    EncodingOption,
    JsonOption,
    OutsideOption,
    RootOption,
    answer_table,
    classes_table,
    emit,
    retrieval_table,
    table,
    tell_cautions,
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or a published checkpoint's folder.")],
    data: Annotated[
        str | None, typer.Option(help="Pairs to evaluate on (default: those it was trained on).")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "test",
    on_bad_row: Annotated[str, typer.Option(help="fail or skip (counted).")] = "fail",
    shots: Annotated[
        int,
        typer.Option(
            min=0, help="Of language models: so many training examples before each prompt."
        ),
    ] = 0,
    equal_texts: Annotated[
        str | None,
        typer.Option(
            help="same: texts that read the same are right answers for all their pictures; apart: "
            "each for its own alone (default: as the run was trained)."
        ),
    ] = None,
    root: RootOption = None,
    allow_outside: OutsideOption = False,
    encoding: EncodingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure retrieval, classification and the geometry of the shared space, answers or captions."""
    from plait import api

    api.tune_process()
    result = api.evaluate(
        run,
        data=data,
        split=split,
        on_bad_row=on_bad_row,
        shots=shots,
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
        equal_texts=equal_texts,
    )

    def page() -> None:
        if "retrieval" not in result:
            answer_table(result, f"{split} split")
            tell_cautions(result)
            return
        retrieval_table(result["retrieval"], f"Retrieval, {split} split")
        for language, figures in (result.get("languages") or {}).items():
            retrieval_table(figures, f"Retrieval, texts in {language}")
        classes_table(result, f"Classification, {split} split")
        tell_cautions(result)
        flat = [(name, f"{value:.4g}") for name, value in _numbers(result.get("geometry") or {})]
        if flat:
            table("Geometry of the shared space", ["measure", "value"], flat)

    emit(result, as_json, page)


def _numbers(tree: dict, prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found.append((prefix + name, float(value)))
    return found
