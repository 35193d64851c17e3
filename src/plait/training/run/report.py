"""``report.md``: a run in words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plait.core.files import write_text
from plait.evaluation.report.answers import lines as answer_lines
from plait.evaluation.report.captions import lines as caption_lines
from plait.evaluation.report.drawing import lines as drawing_lines
from plait.evaluation.report.finetuning import lines as finetuning_lines
from plait.evaluation.report.savings import lines as savings_lines
from plait.evaluation.report.words import correction_words
from plait.training.loop.health import Finding
from plait.training.recipe.schema import Recipe

WAYS = {"text_to_image": "text to image", "image_to_text": "image to text"}


def write_markdown(
    folder: Path, recipe: Recipe, result: Mapping[str, Any], health: Sequence[Finding]
) -> None:
    """Writes ``report.md``."""
    write_text(folder / "report.md", "\n".join(_lines(recipe, result, health)) + "\n")


def _lines(recipe: Recipe, result: Mapping[str, Any], health: Sequence[Finding]) -> Iterator[str]:
    yield f"# {recipe.name}"
    yield ""
    yield f"Trained on `{recipe.data.source}` with seed {recipe.seed}."
    if result.get("retrieval"):
        yield from _retrieval(result)
    yield from finetuning_lines(result)
    yield from answer_lines(result)
    yield from caption_lines(result)
    yield from drawing_lines(result)
    for line in result.get("cautions", ()):
        yield ""
        yield f"**{line}**"
    yield from savings_lines(result)
    yield ""
    yield "## Seconds"
    yield ""
    yield "| step | seconds |"
    yield "|---|---|"
    for name, seconds in result["seconds"].items():
        yield f"| {name} | {seconds:.1f} |"
    yield ""
    yield "## Training health"
    yield ""
    if not health:
        yield "Nothing alarming was seen."
    for finding in health:
        yield f"- **{finding.kind}** ({finding.stage}): {finding.message} {finding.advice}"
    if result["skipped"] or result["notes"]:
        yield ""
        yield "## Data"
        yield ""
        if result["skipped"]:
            yield f"- {result['skipped']} bad rows were left out; `data.json` names each."
        for note in result["notes"]:
            yield f"- {note}"


def _retrieval(result: Mapping[str, Any]) -> Iterator[str]:
    figures = result["retrieval"]
    yield ""
    yield f"## Retrieval on the {result['split']} split, in percent"
    yield ""
    yield "| direction | queries | among | R@1 | R@5 | R@10 | median rank |"
    yield "|---|---|---|---|---|---|---|"
    for way, words in WAYS.items():
        row = figures[way]
        cells = [
            f"{row[f'R@{k}']:.1f} ({row[f'R@{k}_low']:.1f} to {row[f'R@{k}_high']:.1f})"
            if f"R@{k}_low" in row
            else f"{row[f'R@{k}']:.1f}"
            for k in (1, 5, 10)
        ]
        counts = f"{row['queries']:,} | {row['candidates']:,}"
        yield f"| {words} | {counts} | {' | '.join(cells)} | {row['median_rank']:g} |"
    yield ""
    yield "In parentheses: 95% bootstrap intervals over images."
    if words := correction_words(result.get("retrieval_plain")):
        yield words
    if found := result.get("zero_shot"):
        yield ""
        yield f"## Classification on the {result['split']} split, {found['classes']} classes"
        yield ""
        yield "| class | pictures | right, % |"
        yield "|---|---|---|"
        between = (
            f" ({found['top1_low']:.1f} to {found['top1_high']:.1f})" if "top1_low" in found else ""
        )
        yield f"| all | {found['images']:,} | {found['top1']:.1f}{between} |"
        yield f"| mean of the classes | | {found['mean_per_class']:.1f} |"
        for name, one in found.get("per_class", {}).items():
            yield f"| {name.replace('|', ' ')} | {one['images']:,} | {one['top1']:.1f} |"
