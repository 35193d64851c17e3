"""What every command shares: one JSON document or a page for people on stdout, the rest on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from plait.core.foreign import clean

RootOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--root",
        help="A folder below which the files that rows name may lie, besides the folder of the data "
        "(repeatable).",
    ),
]
OutsideOption = Annotated[
    bool,
    typer.Option("--allow-outside", help="Rows may name files anywhere: only for data you trust."),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Of text files that are not UTF-8: gbk, big5, shift_jis, latin-1, utf-16 and more.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON document on stdout, nothing else.")
]


def emit(value: Any, as_json: bool, page: Callable[[], None]) -> None:
    """Prints ``value`` as JSON, or calls ``page`` to print it for people."""
    if as_json:
        json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
        sys.stdout.write("\n")
    else:
        page()


def say(message: str) -> None:
    """One line for people on stderr, with rich markup."""
    from rich.console import Console

    # soft_wrap: names of files stay whole, for eyes and for grep
    Console(stderr=True, highlight=False).print(clean(message), soft_wrap=True)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout; columns of numbers are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", title_style="bold")
    for place, name in enumerate(header):
        numeric = bool(rows) and all(_is_number(row[place]) for row in rows)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(clean(str(cell)) for cell in row))
    Console(highlight=False).print(drawn)


def _is_number(cell: Any) -> bool:
    return str(cell).lstrip("-")[:1].isdigit() or cell in ("", "–")


def retrieval_table(retrieval: Mapping[str, Mapping[str, Any]], title: str = "Retrieval") -> None:
    """The recall figures of `plait.evaluation`, with their 95% intervals, in percent."""
    rows = []
    for direction, figures in retrieval.items():
        cells = [direction.replace("_", " ")]
        cells += [f"{figures['queries']:,}", f"{figures['candidates']:,}"]
        for name in ("R@1", "R@5", "R@10"):
            low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
            interval = f" ({low:.0f} to {high:.0f})" if low is not None else ""
            cells.append(f"{figures[name]:.1f}{interval}")
        cells.append(f"{figures['median_rank']:g}")
        rows.append(cells)
    table(title, ["direction", "queries", "among", "R@1 %", "R@5 %", "R@10 %", "median rank"], rows)


def classes_table(result: Mapping[str, Any], title: str) -> None:
    """Accuracy over the classes that pictures carry, or that their few texts are."""
    found = result.get("zero_shot")
    if not found:
        return
    rows: list[tuple[str, str, str]] = [
        ("all pictures", f"{found['images']:,}", _between(found, "top1", ".1f")),
        ("mean of the classes", "", f"{found['mean_per_class']:.1f}"),
    ]
    own = list(found.get("per_class", {}).items())
    for name, one in own[:MOST_CLASSES]:
        rows.append((str(name), f"{one['images']:,}", f"{one['top1']:.1f}"))
    table(f"{title}: {found['classes']} classes", ["", "pictures", "right, %"], rows)
    if len(own) > MOST_CLASSES:
        say(f"{len(own) - MOST_CLASSES} more classes: see --json.")


def tell_cautions(result: Mapping[str, Any]) -> None:
    """What the figures cannot tell, on stdout below them."""
    for line in result.get("cautions", ()):
        sys.stdout.write(f"note: {line}\n")


MOST_CLASSES = 20  # of a table in a terminal


def answer_table(result: Mapping[str, Any], title: str) -> None:
    """Accuracy by head; of answers by type, and what is left without pictures or questions.

    Of captions their measures, beside those with another sample's picture. Of drawing models
    reconstruction and codes.
    """
    if "reconstruction" in result:
        drawing_table(result, title)
        return
    if "captions" in result:
        caption_table(result, title)
        return
    rows = [
        (name, _count(result[key]), _interval(result[key]))
        for key, name in (
            ("vqa", "all questions"),
            ("classification", "classes"),
            ("match", "does the text belong to the picture"),
        )
        if key in result
    ]
    for name, figures in (result.get("vqa", {}).get("by_answer_type") or {}).items():
        rows.append((name, _count(figures), _interval(figures)))
    for name, accuracy in (result.get("controls") or {}).items():
        count = _count(result["vqa"])
        rows.append((f"control: {name.replace('_', ' ')}", count, f"{accuracy:.1f}"))
    table(title, ["", "of", "accuracy, %"], rows)


CAPTION_MEASURES = ("cider_d", "bleu_1", "bleu_4", "rouge_l")


def caption_table(result: Mapping[str, Any], title: str) -> None:
    """Measures of captions, with the control."""
    found, control = result["captions"], result["controls"]["shuffled_pictures"]
    rows = [
        (
            name.replace("_", "-").upper(),
            _between(found, name, ".2f"),
            f"{control[name]:.2f}",
        )
        for name in CAPTION_MEASURES
    ]
    head = f"captions of {found['captions']:,} pictures"
    table(title, ["", head, "shuffled pictures"], rows)


def drawing_table(result: Mapping[str, Any], title: str) -> None:
    """How well pictures are rebuilt from codes, and how well texts tell the codes."""
    found = result["reconstruction"]
    rows = [
        ("squared error, pixels in 0..1", _between(found, "mse", ".4f")),
        ("signal to noise, dB", _between(found, "psnr", ".2f")),
        ("codes in use", f"{found['codes_used']:.1%}"),
        ("perplexity of the codes", f"{found['perplexity']:.0f}"),
    ]
    for name in ("with_text", "shuffled_texts", "without_text"):
        if name in result.get("codes", {}):
            words = f"nats a code, {name.replace('_', ' ')}"
            rows.append((words, _between(result["codes"], name, ".3f")))
    table(f"{title}, {result['counts']['pictures']:,} pictures", ["", "value"], rows)


def _between(figures: Mapping[str, Any], name: str, style: str) -> str:
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    value = format(figures[name], style)
    return value if low is None else f"{value} ({low:{style}} to {high:{style}})"


def _count(figures: Mapping[str, Any]) -> str:
    found = figures.get("questions", figures.get("samples"))
    return "" if found is None else f"{found:,}"


def _interval(figures: Mapping[str, Any]) -> str:
    accuracy = f"{figures['accuracy']:.2f}"
    if "accuracy_low" not in figures:
        return accuracy
    return f"{accuracy} ({figures['accuracy_low']:.2f} to {figures['accuracy_high']:.2f})"
