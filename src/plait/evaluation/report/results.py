"""The part of a run's page that tells how well the model finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from plait.evaluation.report.plots import Estimate, estimates
from plait.evaluation.report.words import (
    WAYS,
    chance_of,
    correction_words,
    language_name,
    language_words,
    retrieval_words,
)


def results(result: Mapping[str, Any]) -> str:
    """Recall in words, as charts and as a table; empty without figures."""
    figures = result.get("retrieval")
    if not figures:
        return ""
    split = result.get("split")
    parts = [f'<p class="lead">{escape(retrieval_words(figures, split))}</p>']
    languages = result.get("languages") or {}
    if words := language_words(languages):
        parts.append(f"<p>{escape(words)}</p>")
    if words := correction_words(result.get("retrieval_plain")):
        parts.append(f"<p>{escape(words)}</p>")
    rows = list(_estimates(figures))
    told = "; ".join(f"{row.name}: {row.value:.1f} percent" for row in rows)
    charts = [estimates(rows, title="All texts", told=told)]
    if len(languages) > 1:
        for name, own in languages.items():
            rows = list(_estimates(own))
            told = "; ".join(f"{row.name}: {row.value:.1f} percent" for row in rows)
            charts.append(estimates(rows, title=f"Texts in {language_name(name)}", told=told))
    parts.append(f'<div class="charts">{"".join(charts)}</div>')
    parts.append(_table_of_results({"all": figures, **(languages if len(languages) > 1 else {})}))
    if zero_shot := result.get("zero_shot"):
        parts.append(_classes(zero_shot))
    return "".join(parts)


def notes(result: Mapping[str, Any]) -> str:
    """What the figures cannot tell; empty where there is enough of everything."""
    lines = "".join(f"<li>{escape(str(line))}</li>" for line in result.get("cautions", ()))
    return f'<div class="card alarm"><ul class="health">{lines}</ul></div>' if lines else ""


def _classes(found: Mapping[str, Any]) -> str:
    """Accuracy of classification in words, and by class."""
    low, high = found.get("top1_low"), found.get("top1_high")
    interval = f" ({low:.1f} to {high:.1f})" if low is not None else ""
    named = (
        "Named by its text, of the few that the data have"
        if found.get("by") == "text"
        else "Named by its class alone"
    )
    words = (
        f"<p>{named}: {found['top1']:.1f}%{interval} of {found['images']:,} pictures get the right "
        f"one of {found['classes']} classes (mean over classes {found['mean_per_class']:.1f}%).</p>"
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td class="number">{one["images"]:,}</td>'
        f'<td class="number">{one["top1"]:.1f}</td></tr>'
        for name, one in found.get("per_class", {}).items()
    )
    if not rows:
        return words
    return (
        f'{words}<details><summary>Class by class</summary><div class="scroll"><table><thead><tr>'
        '<th scope="col">class</th><th scope="col" class="number">pictures</th>'
        f'<th scope="col" class="number">right, %</th></tr></thead><tbody>{rows}</tbody></table></div>'
        "</details>"
    )


def _estimates(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[Estimate]:
    for style, (way, name) in enumerate(
        (("text_to_image", "picture"), ("image_to_text", "words")), 1
    ):
        row = figures[way]
        for k in _ks(row):
            yield Estimate(
                f"{name} in top {k}",
                row[f"R@{k}"],
                row.get(f"R@{k}_low"),
                row.get(f"R@{k}_high"),
                _chance(row, k),
                style,
            )


def _chance(row: Mapping[str, Any], k: int) -> float:
    """Percentage that guessing gives: some right candidate among ``k`` drawn without putting back."""
    pool = row["candidates"]
    # a picture may have several texts, a text several pictures: any of them counts
    right = max(1.0, row.get("right", pool / row["queries"]))
    return chance_of(k, pool, right)


def _ks(row: Mapping[str, Any]) -> list[int]:
    return sorted(int(name[2:]) for name in row if name.startswith("R@") and name[2:].isdigit())


def _table_of_results(sets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    rows = []
    for name, figures in sets.items():
        for way, words in WAYS.items():
            row = figures[way]
            cells = "".join(f'<td class="number">{_cell(row, k)}</td>' for k in _ks(row))
            whose = (
                ""
                if len(sets) == 1
                else f"{'all texts' if name == 'all' else language_name(name)}: "
            )
            rows.append(
                f'<tr><th scope="row">{escape(whose + words)}</th>{cells}'
                f'<td class="number">{row["median_rank"]:g}<small>of {row["candidates"]:,}</small></td>'
                f'<td class="number">{row["queries"]:,}</td></tr>'
            )
    heads = "".join(
        f'<th scope="col" class="number">R@{k}</th>'
        for k in _ks(next(iter(sets.values()))["text_to_image"])
    )
    return (
        '<details><summary>All figures in a table</summary><div class="scroll"><table><thead><tr><th scope="col">percent</th>'
        f'{heads}<th scope="col" class="number">median rank</th>'
        f'<th scope="col" class="number">queries</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        '<p class="soft">R@k: how often a right answer is among the first k. Small print: 95% bootstrap interval over '
        "pictures. Ties count against the model.</p></details>"
    )


def _cell(row: Mapping[str, Any], k: int) -> str:
    low, high = row.get(f"R@{k}_low"), row.get(f"R@{k}_high")
    interval = f"<small>{low:.1f} to {high:.1f}</small>" if low is not None else ""
    return f"{row[f'R@{k}']:.1f}{interval}"
