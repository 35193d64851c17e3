"""Progress bars on stderr, so that stdout carries results alone; in a notebook, in its cell.

Libraries call `track`; the command line decides once, through `configure`, whether bars show.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

from plait.core.notebook import CellBar, in_notebook

Item = TypeVar("Item")

_shown: bool | None = None


@runtime_checkable
class Bar(Protocol):
    """A running progress bar."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Moves on by ``amount``; ``note`` replaces the text behind the bar when given."""


class _Silent:
    def advance(self, amount: int = 1, note: str = "") -> None:
        pass


def configure(shown: bool | None) -> None:
    """Shows bars always (True), never (False), or in a terminal and in a notebook (None)."""
    global _shown
    _shown = shown


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Bar]:
    """A progress bar titled ``title`` over ``total`` steps (unknown when None)."""
    if _shown is not False and in_notebook():
        cell = CellBar(title, total)
        try:
            yield cell
        finally:
            cell.draw()
        return
    shown = sys.stderr.isatty() if _shown is None else _shown
    if not shown:
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, note="")

        class _Shown:
            def advance(self, amount: int = 1, note: str = "") -> None:
                progress.advance(task, amount)
                if note:
                    progress.update(task, note=note)

        yield _Shown()


def track(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Yields ``items`` while a bar titled ``title`` counts them."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with bar(title, total) as running:
        for item in items:
            yield item
            running.advance()
