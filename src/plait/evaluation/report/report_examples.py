"""The parts of a run's page that show searches with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from plait.evaluation.report.words import signed


def _hit(found: Mapping[str, Any]) -> str:
    """A found picture, with its rank, score and words."""
    text = escape(str(found["text"]))
    picture = (
        f'<img src="{found["picture"]}" alt="{text}" loading="lazy">' if found["picture"] else ""
    )
    right = " right" if found["right"] else ""
    tick = " ✓" if found["right"] else ""
    return (
        f'<div class="hit{right}"><span class="frame">{picture}</span><span class="place">'
        f"<span>{found['rank']:,}.{tick}</span><span>{signed(found['score'])}</span></span>{text}</div>"
    )


def searches(found: Sequence[Mapping[str, Any]]) -> str:
    """Texts with the pictures they find."""
    if not found:
        return ""
    cards = []
    for search in found:
        hits = "".join(f"<li>{_hit(each)}</li>" for each in search["results"])
        late = (
            ""
            if any(f["right"] for f in search["results"])
            else f' <span class="soft">· the right one is at rank {search["answer"]["rank"]:,}</span>'
        )
        cards.append(
            f'<div class="card"><h3>“{escape(search["query"])}”{late}</h3><ol class="hits">{hits}</ol></div>'
        )
    return (
        '<p class="soft">Texts drawn at random; right answers are framed and ticked. Below a picture: its rank and '
        "score: the cosine to the text, less the correction for hubs where the model has one.</p>"
        f'<div class="two">{"".join(cards)}</div>'
    )


def pictures(found: Sequence[Mapping[str, Any]]) -> str:
    """Pictures with the texts they find."""
    cards = []
    for search in found:
        items = "".join(
            f"<li{' class=right' if f['right'] else ''}><span>{escape(f['text'])}{' ✓' if f['right'] else ''}</span>"
            f"<span>{signed(f['score'])}</span></li>"
            for f in search["results"]
        )
        alt = escape(search["query"])
        picture = (
            f'<img src="{search["picture"]}" alt="{alt}" loading="lazy">'
            if search["picture"]
            else ""
        )
        cards.append(
            f'<div class="card pair"><div class="hit"><span class="frame">{picture}</span></div>'
            f'<ol class="texts">{items}</ol></div>'
        )
    return f'<div class="two">{"".join(cards)}</div>' if cards else ""


def mistakes(found: Sequence[Mapping[str, Any]]) -> str:
    """Texts with what they found instead of their picture, and that picture."""
    if not found:
        return ""
    cards = []
    for search in found:
        hits = "".join(f"<li>{_hit(each)}</li>" for each in search["results"])
        cards.append(
            f'<div class="card"><h3>“{escape(search["query"])}”</h3><ol class="hits">{hits}'
            f'<li class="wanted">{_hit(search["answer"])}</li></ol></div>'
        )
    return (
        '<p class="soft">The texts whose picture comes last: what was found instead, then the picture that was meant. '
        "Often such a text is wrong or says little; <code>plait data audit</code> lists suspects.</p>"
        f'<div class="two">{"".join(cards)}</div>'
    )
