"""The part of a run's report that tells what sharing saves, over towers and over tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Rows = list[tuple[str, str, str, str]]  # what, together, apart, saved


def savings(result: Mapping[str, Any]) -> str:
    """In words and as tables; empty where nothing is shared."""
    parts = []
    for words, heads, rows in _told(result):
        top = "".join(f'<th scope="col" class="number">{escape(head)}</th>' for head in heads)
        body = "".join(
            f'<tr><th scope="row">{escape(what)}</th>'
            + "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
            + "</tr>"
            for what, *cells in rows
        )
        parts.append(
            f'<p>{escape(words)}</p><div class="scroll"><table><thead><tr><th scope="col"></th>{top}'
            f"</tr></thead><tbody>{body}</tbody></table></div>"
        )
    return "".join(parts)


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The same in Markdown."""
    for number, (words, heads, rows) in enumerate(_told(result)):
        if number == 0:
            yield from ("", "## What sharing saves")
        yield from ("", words, "", f"| | {' | '.join(heads)} |", "|---|---|---|---|")
        for row in rows:
            yield f"| {' | '.join(row)} |"


def _told(result: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str, str], Rows]]:
    found = result.get("savings", {})
    if layers := found.get("layers"):
        yield (
            f"The first {_counted(layers['blocks'], 'transformer block')} of the towers for "
            f"{_listed(layers['towers'])} {'is' if layers['blocks'] == 1 else 'are'} the same "
            f"weights, so that {layers['saved_percent']:.1f}% of the parameters are saved. Each tower "
            f"computes all its blocks either way.{_how(layers)}",
            ("shared", "not shared", "saved"),
            list(_rows(layers)),
        )
    if tasks := found.get("tasks"):
        yield (
            f"One network does {_listed(tasks['names'])}. With a network for each, encoders and fusion "
            f"would be there {len(tasks['names'])} times: {tasks['saved_percent']:.1f}% of those "
            f"parameters are saved.{_how(tasks)}",
            ("one network", "one for each task", "saved"),
            list(_rows(tasks)),
        )


def _how(entry: Mapping[str, Any]) -> str:
    if "rows" not in entry:
        return ""
    return (
        f" An update of {entry['rows']:,} rows of the last stage was measured on copies after the run;"
        " times are the median of a few, with the fastest and the slowest."
    )


def _rows(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    together, apart = entry["together"], entry["apart"]
    for key, name, unit, scale in (
        ("parameters", "parameters", "", 1.0),
        ("optimiser_bytes", "optimiser's memory", " MB", 1e-6),
        ("update_seconds", "one update", " ms", 1e3),
    ):
        if key in together:
            one, other = together[key] * scale, apart[key] * scale
            saved = f"{100 * (1 - one / other):.1f}%" if other else "-"
            digits = 0 if scale == 1 else 2
            cells = [
                f"{side[key] * scale:,.{digits}f}{_spread(side, key, scale)}{unit}"
                for side in (together, apart)
            ]
            yield name, cells[0], cells[1], saved


def _spread(side: Mapping[str, Any], key: str, scale: float) -> str:
    if f"{key}_low" not in side:
        return ""
    return f" ({side[f'{key}_low'] * scale:,.2f} to {side[f'{key}_high'] * scale:,.2f})"


def _counted(number: int, what: str) -> str:
    return what if number == 1 else f"{number} {what}s"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
