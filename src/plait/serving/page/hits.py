"""Found rows and the columns of an index as HTML, and the clicks on them; all told is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from plait.retrieval.store.columns import Column

MOST_ENTRIES: Final = 40  # of a row's metadata
MOST_CHARACTERS: Final = 300  # of one of them
_CAPTION: Final = 200  # characters of a hit's text; the large view has all

CSS: Final = """
.plait-hits {display: grid; gap: 0.75rem; list-style: none; margin: 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); align-items: start;}
.plait-hits li {border: 1px solid var(--border-color-primary); border-radius: 0.5rem;
  overflow: hidden; background: var(--block-background-fill);}
.plait-hits img, .plait-hits .none {width: 100%; aspect-ratio: 1; object-fit: contain;
  background: #fff; display: grid; place-items: center; color: #555;}
.plait-hits button.open {display: block; width: 100%; padding: 0; border: 0; cursor: zoom-in;}
.plait-hits li > :not(button.open, .none) {display: block; margin: 0; padding: 0.2rem 0.6rem;
  overflow-wrap: anywhere;}
.plait-hits li > :last-child {padding-bottom: 0.6rem;}
.plait-view p {display: block; margin: 0 0 0.3rem;}
.plait-hits .score {font-variant-numeric: tabular-nums; font-weight: 600;}
.plait-hits .file, .plait-hits .bare, .plait-hits details {opacity: 0.75;
  font-size: 0.85em;}
.plait-hits button.more, .plait-columns button, .plait-view button {cursor: pointer;
  font-size: 0.85em; border: 1px solid var(--border-color-primary); border-radius: 0.4rem;
  padding: 0.15rem 0.5rem; background: var(--button-secondary-background-fill);}
.plait-hits dl, .plait-view dl {display: grid; grid-template-columns: auto 1fr; gap: 0 0.6rem;
  margin: 0;}
.plait-hits dt, .plait-view dt {font-weight: 600;}
.plait-hits dd, .plait-view dd {margin: 0; overflow-wrap: anywhere;}
.plait-columns table {border-collapse: collapse; width: 100%;}
.plait-columns :is(table, tr, th, td) {border: none !important;}
.plait-columns th, .plait-columns td {text-align: left; vertical-align: top;
  padding: 0.2rem 0.8rem 0.2rem 0;}
.plait-columns :is(th, td:nth-child(2)) {overflow-wrap: normal; word-break: normal;}
.plait-columns td:last-child {width: 100%; overflow-wrap: anywhere;}
.plait-columns button {margin: 0 0.3rem 0.3rem 0;}
.plait-view {max-width: min(96vw, 80rem); max-height: 94vh; overflow: auto; padding: 1rem;
  border: 1px solid var(--border-color-primary); border-radius: 0.5rem;
  background: var(--body-background-fill); color: var(--body-text-color); margin: auto;}
.plait-view::backdrop {background: rgb(0 0 0 / 60%);}
.plait-view img {max-width: 100%; max-height: 70vh; margin: 0.5rem auto; display: block;}
.plait-view form {text-align: right;}
"""

KEY: Final = "plait_key"  # of the row that was clicked, in the page's window
CLICKS: Final = f"""
element.addEventListener("click", (event) => {{
  const button = event.target.closest("button[data-key]");
  if (!button) return;
  window.{KEY} = button.dataset.key;
  trigger(button.classList.contains("more") ? "select" : "click");
}});
"""
"""Of the hits: a picture is Gradio's event ``click``, "more like this" its ``select``."""

CLICKED: Final = f"(key, ...others) => [window.{KEY}, ...others]"
"""Puts the key of the clicked row in the place of a handler's first input."""

FILTERS: Final = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-where]");
  const field = document.querySelector("#plait-where textarea, #plait-where input");
  if (!button || !field) return;
  const now = field.value.trim();
  field.value = now ? `${now} AND ${button.dataset.where}` : button.dataset.where;
  field.dispatchEvent(new Event("input", {bubbles: true}));
  field.focus();
});
"""
"""Of the columns: a filter that is clicked goes into the field of the filter."""

VIEW: Final = """
new MutationObserver(() => {
  const view = element.querySelector("dialog");
  if (view && !view.open) view.showModal();
}).observe(element, {childList: true, subtree: true});
element.addEventListener("close", () => { props.value = ""; }, true);
"""
"""Of the large view: it opens above the page, closes by Escape, and opens again for the same row."""


def hits_html(
    hits: Sequence[Mapping[str, Any]], say: Mapping[str, str], like: str | None = None
) -> str:
    """A grid of found rows.

    Args:
        hits: of `plait.serving.service.searching.Searcher.find`, with thumbnails and files.
        say: words of the language.
        like: the key of the row that they are like.
    """
    if not hits:
        return f"<p>{escape(say['nothing'])}</p>"
    name = "" if like is None else like.split("/", 2)[-1]  # the sample's id
    told = f"<p>{escape(say['more'])}: <strong>{escape(name)}</strong></p>" if name else ""
    return f'{told}<ol class="plait-hits">{"".join(_hit(hit, say) for hit in hits)}</ol>'


def _hit(hit: Mapping[str, Any], say: Mapping[str, str]) -> str:
    key, caption = escape(hit["key"]), _caption(hit, say, _CAPTION)
    shown, alt = hit.get("thumbnail"), escape(_cut(hit["text"] or _name(hit)))
    picture = (
        f'<button class="open" data-key="{key}" aria-label="{escape(say["open"])}: {alt}">'
        f'<img src="{escape(shown)}" alt="{alt}"></button>'
        if shown
        else f'<div class="none">{escape(say["no_picture"])}</div>'
    )
    told = _entries(hit["metadata"])
    details = f"<details><summary>{escape(say['metadata'])}</summary>{told}</details>"
    return (
        f'<li>{picture}<p><span class="score">{hit["score"]:.3f}</span> {caption}</p>'
        f"{_file(hit)}{details if told else ''}"
        f'<p><button class="more" data-key="{key}">{escape(say["more"])}</button></p></li>'
    )


def _name(hit: Mapping[str, Any]) -> str:
    """Of the file; the id of the sample where the file is not to be told of."""
    file = hit.get("file")
    return str(file["name"] if file else hit["id"])


def _caption(hit: Mapping[str, Any], say: Mapping[str, str], most: int | None = None) -> str:
    """The text, or that there is none."""
    text = hit["text"]
    if text is None:
        return f'<span class="bare">{escape(say["no_caption"])}</span>'
    return escape(_cut(text, most))


def _file(hit: Mapping[str, Any]) -> str:
    """Name, folder and date; the sample's id where the file is not to be told of."""
    file = hit.get("file") or {}
    told = [_name(hit), file.get("folder"), file.get("date")]
    return f'<p class="file">{"<br>".join(escape(one) for one in told if one)}</p>'


def _entries(metadata: Mapping[str, Any]) -> str:
    """A list of all that is known of a row."""
    known = [(key, value) for key, value in metadata.items() if value is not None]
    rows = "".join(
        f"<dt>{escape(_cut(key))}</dt><dd>{escape(_cut(_told(value)))}</dd>"
        for key, value in known[:MOST_ENTRIES]
    )
    more = "<dt>...</dt><dd></dd>" if len(known) > MOST_ENTRIES else ""
    return f"<dl>{rows}{more}</dl>" if known else ""


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, most: int | None = MOST_CHARACTERS) -> str:
    return text if most is None or len(text) <= most else f"{text[: most - 3]}..."


def view_html(hit: Mapping[str, Any], say: Mapping[str, str]) -> str:
    """One row with its picture, large, and all its texts.

    Args:
        hit: of `plait.serving.service.searching.Searcher.show`.
        say: words of the language.
    """
    shown = hit["thumbnail"]
    picture = (
        f'<img src="{escape(shown)}" alt="{escape(hit["text"] or _name(hit))}">'
        if shown
        else f"<p>{escape(say['no_picture'])}: {escape(hit['thumbnail_problem'])}</p>"
    )
    texts = "".join(f"<p>{escape(text)}</p>" for text in hit["texts"]) or _caption(hit, say)
    return (
        f'<dialog class="plait-view" aria-label="{escape(_name(hit))}">'
        f'<form method="dialog"><button>{escape(say["close"])}</button></form>'
        f"{picture}{texts}{_file(hit)}{_entries(hit['metadata'])}</dialog>"
    )


def columns_html(columns: Sequence[Column], say: Mapping[str, str]) -> str:
    """A table of what filters can name, with filters to click."""
    rows = []
    for column in columns:
        suggested = column.suggested()
        if not suggested:
            continue
        tries = "".join(
            f'<button data-where="{escape(one)}">{escape(one)}</button>' for one in suggested
        )
        rows.append(
            f'<tr><th scope="row">{escape(column.name)}</th>'
            f"<td>{escape(say[f'kind_{column.kind}'])}</td><td>{tries}</td></tr>"
        )
    return (
        f'<details class="plait-columns"><summary>{escape(say["columns"])}</summary>'
        f"<table><tbody>{''.join(rows)}</tbody></table></details>"
    )
