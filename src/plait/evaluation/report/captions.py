"""The part of a run's page that tells how well a language model describes pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

MEASURES = {
    "cider_d": "CIDEr-D (0 to 10)",
    "bleu_1": "BLEU-1, %",
    "bleu_4": "BLEU-4, %",
    "rouge_l": "ROUGE-L, %",
}


def captions(result: Mapping[str, Any]) -> str:
    """Measures beside those of the control, and some captions; empty without figures."""
    rows = list(_rows(result))
    if not rows:
        return ""
    table = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td><td>{escape(control)}</td></tr>"
        for name, value, control in rows
    )
    parts = [
        f'<p class="lead">{escape(_words(result))}</p><div class="scroll" tabindex="0"><table>'
        "<thead><tr><th>measure</th><th>captions (95% interval)</th><th>of another picture</th></tr>"
        f"</thead><tbody>{table}</tbody></table></div>"
    ]
    written = "".join(
        f"<tr><td>{escape(one['written'])}</td><td>{escape(' / '.join(one['references']))}</td>"
        f"<td>{escape(one['another_picture'])}</td></tr>"
        for one in result.get("examples", ())
    )
    if written:
        parts.append(
            '<div class="scroll" tabindex="0"><table><thead><tr><th>written</th><th>people wrote</th>'
            f"<th>written of another picture</th></tr></thead><tbody>{written}</tbody></table></div>"
        )
    return "".join(parts)


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The same as Markdown."""
    rows = list(_rows(result))
    if not rows:
        return
    yield ""
    yield f"## Captions of the {result['split']} split"
    yield ""
    yield "| measure | captions | of another picture |"
    yield "|---|---|---|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
    yield (
        f"Of {result['captions']['captions']:,} pictures. In parentheses: 95% bootstrap intervals over "
        "pictures."
    )
    if result.get("examples"):
        yield ""
        yield "| written | people wrote | written of another picture |"
        yield "|---|---|---|"
        for one in result["examples"]:
            told = (one["written"], " / ".join(one["references"]), one["another_picture"])
            yield f"| {' | '.join(text.replace('|', ' ') for text in told)} |"


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    found = result.get("captions")
    if found is None:
        return
    control = result["controls"]["shuffled_pictures"]
    for name, words in MEASURES.items():
        low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
        between = "" if low is None else f" ({low:.2f} to {high:.2f})"
        yield words, f"{found[name]:.2f}{between}", f"{control[name]:.2f}"


def _words(result: Mapping[str, Any]) -> str:
    found = result["captions"]
    return (
        f"{found['captions']:,} pictures were described, in {found['distinct']:,} different ways. The "
        "difference from captions of another picture is what the model reads from the picture."
    )
