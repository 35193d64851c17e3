"""What notebooks show: results as short tables, and progress in a cell.

Objects have a short ``__repr__`` for terminals and ``_repr_html_`` for notebooks; both tell little of
much, and escape what data says.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, ParamSpec, TypeVar, cast

Given = ParamSpec("Given")
Result = TypeVar("Result")

MOST_LINES = 12
MOST_CHARACTERS = 120
_SECONDS = 0.2  # between two pictures of a bar


class Report(dict[str, Any]):
    """A result: the dictionary that it is, told in a few lines."""

    def __repr__(self) -> str:
        lines = [f"  {name}: {value}" for name, value in self._told()]
        return "\n".join([f"Report of {', '.join(map(str, self)) or 'nothing'}", *lines])

    def _repr_html_(self) -> str:
        return table_html(self._told())

    def _told(self) -> list[tuple[str, str]]:
        leaves = list(_leaves(self, ""))
        more = len(leaves) - MOST_LINES
        told = [(name, cut(value)) for name, value in leaves[:MOST_LINES]]
        return [*told, ("...", f"and {more:,} more")] if more > 0 else told


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Numbers and texts of nested mappings, by dotted name; a list is one of them."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, float):
        yield name, f"{value:.4g}"
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 3:
        yield name, f"{len(value):,} values"
    else:
        yield name, str(value)


def reported(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function, a dictionary that it returns being a `Report`."""

    @functools.wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        result: Any = function(*args, **kwargs)
        made: Any = Report(result) if type(result) is dict else result
        return cast(Result, made)

    return called


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text on one line, shortened."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def table_html(rows: Sequence[tuple[str, str]]) -> str:
    """A table of names and values."""
    body = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table><tbody>{body}</tbody></table>"


def strip_html(pictures: Sequence[tuple[str | None, str]], more: int = 0) -> str:
    """Small pictures in a row.

    Args:
        pictures: a data URL, or None where there is no picture; and what stands below.
        more: how many are left out.
    """
    figures = "".join(
        '<figure style="display:inline-block;width:128px;margin:4px;vertical-align:top">'
        + (f'<img src="{escape(url)}" alt="" style="max-width:128px">' if url else "")
        + f'<figcaption style="font-size:smaller">{escape(cut(told))}</figcaption></figure>'
        for url, told in pictures
    )
    return f"<div>{figures}{f'and {more:,} more' if more > 0 else ''}</div>"


def in_notebook() -> bool:
    """Whether this runs in a cell of a notebook, which shows HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class CellBar:
    """A progress bar in a cell, drawn anew in its place.

    Args:
        title: before it.
        total: steps; None where unknown.
    """

    def __init__(self, title: str, total: int | None) -> None:
        from IPython.display import HTML, display

        self.title, self.total, self.done, self.note = title, total, 0, ""
        self._html, self._began, self._drawn = HTML, time.monotonic(), 0.0
        self._shown = display(HTML(self.html()), display_id=True)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Moves on by ``amount``; ``note`` replaces the text behind the bar when given."""
        self.done += amount
        self.note = note or self.note
        if time.monotonic() - self._drawn >= _SECONDS:
            self.draw()

    def draw(self) -> None:
        """Shows what is done by now."""
        self._drawn = time.monotonic()
        self._shown.update(self._html(self.html()))

    def html(self) -> str:
        """The bar."""
        known = "" if self.total is None else f' value="{self.done}" max="{max(1, self.total)}"'
        counted = f"{self.done:,}" if self.total is None else f"{self.done:,}/{self.total:,}"
        seconds = time.monotonic() - self._began
        return (
            f"<div>{escape(self.title)} <progress{known}></progress> {counted}, {seconds:.0f} s "
            f"{escape(cut(self.note))}</div>"
        )
