"""The part of a run's page that tells how well the model finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from plait.evaluation.plots import Estimate, estimates
from plait.evaluation.words import (
    WAYS,
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
        low, high = zero_shot.get("top1_low"), zero_shot.get("top1_high")
        interval = f" ({low:.1f} to {high:.1f})" if low is not None else ""
        parts.append(
            f"<p>Named by its class alone, without training for it: {zero_shot['top1']:.1f}%{interval} "
            f"of {zero_shot['images']:,} pictures get the right one of {zero_shot['classes']} classes "
            f"(mean over classes {zero_shot['mean_per_class']:.1f}%).</p>"
        )
    return "".join(parts)


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
    right = max(1.0, pool / row["queries"])  # a picture may have several texts: any of them counts
    missed = 1.0
    for drawn in range(min(k, pool)):
        missed *= max(0.0, 1 - right / (pool - drawn))
    return 100 * (1 - missed)


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
                f'<td class="number">{row["median_rank"]:g}<small>of {row["candidates"]:,}</small></td></tr>'
            )
    heads = "".join(
        f'<th scope="col" class="number">R@{k}</th>'
        for k in _ks(next(iter(sets.values()))["text_to_image"])
    )
    return (
        '<details><summary>All figures in a table</summary><div class="scroll"><table><thead><tr><th scope="col">percent</th>'
        f'{heads}<th scope="col" class="number">median rank</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        '<p class="soft">R@k: how often a right answer is among the first k. Small print: 95% bootstrap interval over '
        "pictures. Ties count against the model.</p></details>"
    )


def _cell(row: Mapping[str, Any], k: int) -> str:
    low, high = row.get(f"R@{k}_low"), row.get(f"R@{k}_high")
    interval = f"<small>{low:.1f} to {high:.1f}</small>" if low is not None else ""
    return f"{row[f'R@{k}']:.1f}{interval}"
