"""Bars of probabilities and reasons as HTML; all that is told is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

CSS = """
.plait-bars {width: 100%; border-collapse: collapse;}
.plait-bars, .plait-bars tr, .plait-bars th, .plait-bars td {border: none !important;}
.plait-bars caption {text-align: left; font-weight: 600; padding: 0.25rem 0;}
.plait-bars th {text-align: left; font-weight: 400; padding: 0.25rem 0.75rem 0.25rem 0;
  overflow-wrap: anywhere;}
.plait-bars td {padding: 0.25rem 0;}
.plait-bars td.bar {width: 55%;}
.plait-bars meter {width: 100%; height: 1.1rem;}
.plait-bars .share {text-align: right; font-variant-numeric: tabular-nums; width: 4.5rem;}
.plait-error {border-left: 0.25rem solid #b91c1c; padding: 0.5rem 0.75rem; overflow-wrap: anywhere;}
.plait-switch {text-align: right;}
"""


def error_html(reason: str) -> str:
    """Why there is no result; screen readers say it at once."""
    return f'<p class="plait-error" role="alert">{escape(reason)}</p>'


def bars_html(rows: Sequence[tuple[str, float]], caption: str, what: str, share: str) -> str:
    """A table with a bar for each row.

    Args:
        rows: what, and its probability.
        caption: of the table.
        what: head of the first column, for screen readers.
        share: head of the second.
    """
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td class="bar"><meter min="0" max="1" value="{value:.4f}">{value:.0%}</meter></td>'
        f'<td class="share">{value:.1%}</td></tr>'
        for name, value in rows
    )
    return (
        f'<table class="plait-bars" aria-label="{escape(what)}, {escape(share)}">'
        f"<caption>{escape(caption)}</caption><tbody>{body}</tbody></table>"
    )
