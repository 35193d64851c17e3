"""The part of a run's report that tells how well a drawing model rebuilds and reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ROWS = (
    ("reconstruction", "mse", "squared error of rebuilt pictures, pixels in 0..1", ".4f"),
    ("reconstruction", "psnr", "their signal to noise, dB", ".2f"),
    ("reconstruction", "codes_used", "share of the codes in use", ".3f"),
    ("reconstruction", "perplexity", "perplexity of the codes", ".0f"),
    ("codes", "with_text", "nats a code, its text read", ".3f"),
    ("codes", "shuffled_texts", "nats a code, another text read", ".3f"),
    ("codes", "without_text", "nats a code, no text read", ".3f"),
)


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """A Markdown table; nothing for other models."""
    if "reconstruction" not in result:
        return
    yield ""
    yield f"## Codes on the {result['split']} split"
    yield ""
    yield "| what | value |"
    yield "|---|---|"
    for part, name, words, style in ROWS:
        figures = result.get(part, {})
        if name in figures:
            low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
            between = "" if low is None else f" ({low:{style}} to {high:{style}})"
            yield f"| {words} | {figures[name]:{style}}{between} |"
    yield ""
    yield (
        f"Of {result['counts']['pictures']:,} pictures. In parentheses: 95% bootstrap intervals over "
        "pictures."
    )
