"""What fine-tuning changed, and the path from the published weights to the fine-tuned ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

MEASURES = (
    ("words find the picture, R@1", ("retrieval", "text_to_image", "R@1")),
    ("words find the picture, R@5", ("retrieval", "text_to_image", "R@5")),
    ("a picture finds its words, R@1", ("retrieval", "image_to_text", "R@1")),
    ("a picture finds its words, R@5", ("retrieval", "image_to_text", "R@5")),
    ("zero-shot classes, top-1", ("zero_shot", "top1")),
    ("zero-shot classes, mean over classes", ("zero_shot", "mean_per_class")),
)


@dataclass(frozen=True)
class Table:
    """One table for pages, Markdown and terminals alike; the first column is words."""

    title: str
    words: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """Figures before and after, and those along the path of WiSE-FT; none of other runs."""
    before = result.get("before")
    if before:
        rows = [
            (words, f"{old:.1f}", f"{new:.1f}", f"{new - old:+.1f}")
            for words, path in MEASURES
            if (old := _at(before, path)) is not None and (new := _at(result, path)) is not None
        ]
        yield Table(
            "Before and after fine-tuning",
            f"In percent, on the {result.get('split')} split. Before is the published model, of "
            "which no weight was changed.",
            ("measure", "before", "after", "change"),
            rows,
        )
    if found := result.get("wise_ft"):
        yield _path(found)


def _path(found: Mapping[str, Any]) -> Table:
    path = found["path"]
    classes = any("zero_shot" in row for row in path)
    rows = []
    for row in path:
        kept = row["alpha"] == found["alpha"]
        cells = [
            f"{row['alpha']:g}{' (kept)' if kept else ''}",
            f"{row['value']:.1f}",
            f"{row['text_to_image']:.1f}",
            f"{row['image_to_text']:.1f}",
        ]
        rows.append((*cells, *([f"{row['zero_shot']:.1f}"] if "zero_shot" in row else [])))
    return Table(
        "From the published to the fine-tuned weights",
        "Weights are (1 - alpha) published + alpha fine-tuned (WiSE-FT, Wortsman et al. 2022). "
        f"In percent, on the {found['samples']} samples of the {found['split']} split, where "
        f"{found['metric']} chose alpha.",
        (
            "alpha",
            found["metric"],
            "text to image R@1",
            "image to text R@1",
            *(["zero-shot top-1"] if classes else []),
        ),
        rows,
    )


def finetuning(result: Mapping[str, Any]) -> str:
    """As HTML; empty of other runs."""
    parts = []
    for table in tables(result):
        head, *heads = (escape(one) for one in table.heads)
        top = "".join(f'<th scope="col" class="number">{one}</th>' for one in heads)
        body = "".join(
            f'<tr><th scope="row">{escape(what)}</th>'
            + "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
            + "</tr>"
            for what, *cells in table.rows
        )
        parts.append(
            f'<p>{escape(table.words)}</p><div class="scroll"><table><thead><tr>'
            f'<th scope="col">{head}</th>{top}</tr></thead><tbody>{body}</tbody></table></div>'
        )
    return "".join(parts)


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The same in Markdown."""
    for table in tables(result):
        yield from ("", f"## {table.title}", "", table.words, "")
        yield f"| {' | '.join(table.heads)} |"
        yield "|---" * len(table.heads) + "|"
        for row in table.rows:
            yield f"| {' | '.join(row)} |"


def _at(figures: Any, path: Sequence[str]) -> Any:
    for key in path:
        figures = figures.get(key) if isinstance(figures, Mapping) else None
    return figures
