"""The exception tree of plait.

    PlaitError                 plait is at fault, or cannot say who is          exit code 1
    ├── Interrupted            stopped by the user; the message tells how to go on     130
    ├── MachineError           disk, memory or network fail (see `plait.core.trouble`)   1
    └── UserError              the input is at fault; the message tells the mend exit code 2
        ├── DataError          a file, a row, an image, a text
        ├── RecipeError        a recipe key or value
        ├── AccessError        a file or folder is gone, read-only or not this user's
        ├── ModelError         an unknown source, a missing or unfit weight
        ├── SearchIndexError   a search index that does not fit the model or the query
        └── MissingExtra       an optional library that is not installed

Messages say what is wrong, where, and how to mend it.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable
from pathlib import Path


class PlaitError(Exception):
    """Base of every exception that plait raises on purpose."""

    exit_code = 1


class Interrupted(PlaitError):
    """Stopped by Ctrl-C or by the system, with everything saved that is needed to go on."""

    exit_code = 130


class MachineError(PlaitError):
    """The disk is full, memory does not suffice, a connection is lost: nobody's input is at fault."""


class UserError(PlaitError):
    """The user's input is at fault. Shown as one message, never as a traceback.

    What a message repeats of the input is cut (see `tamed`).
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(tamed(message))


class DataError(UserError):
    """A problem with one file or one row of the user's data.

    Args:
        problem: what is wrong, and how to mend it.
        path: the file at fault.
        row: where in that file: a line or row number (from 1), or a key.
        nothing: the source can be read, and there is nothing in it.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        row: int | str | None = None,
        nothing: bool = False,
    ) -> None:
        self.problem, self.path, self.row, self.nothing = tamed(problem), path, row, nothing
        place = "" if path is None else str(path)
        if row is not None:
            place += f"{', ' if place else ''}row {cut(str(row))}"
        super().__init__(f"{place}: {problem}" if place else problem)


class RecipeError(UserError):
    """A recipe has an unknown key, a wrong type, or an impossible combination."""


class AccessError(UserError):
    """A file or folder that the user named is gone, read-only, or not this user's to use."""


class ModelError(UserError):
    """A model or encoder cannot be built or loaded as asked."""


class SearchIndexError(UserError):
    """An index cannot be used with this model or for this query."""


class MissingExtra(UserError):
    """An optional library is needed and not installed.

    Args:
        library: what could not be imported, e.g. ``openvino``.
        extra: the extra of plait that installs it, e.g. ``fast``.
        purpose: what it is needed for.
    """

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {library}, which is not installed: {install_command(extra)}"
        )


def install_command(extra: str) -> str:
    """What a user types for an extra of plait: where plait runs from a checkout, no index has it."""
    checkout = Path(__file__).parents[3]
    if (checkout / "pyproject.toml").is_file() and (checkout / "src" / "plait").is_dir():
        return f"pip install -e '.[{extra}]' in {checkout}"
    return f"pip install 'plait[{extra}]'"


_LONGEST_WORD, _MOST_WORDS = 100, 1000  # between which a misspelt one is looked for


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?`` for a misspelt word, or an empty string."""
    if len(word) > _LONGEST_WORD:  # nobody misspells so much, and comparing takes long
        return ""
    words = [one for one in itertools.islice(known, _MOST_WORDS) if len(one) <= _LONGEST_WORD]
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


MOST_SHOWN = 80  # characters of a value of somebody's that a message repeats
MOST_CUT = 200  # characters of a text of somebody's, such as an answer or a path


def shown(value: object, most: int = MOST_SHOWN) -> str:
    """``repr`` of a value for a message, cut where it is long.

    A message that repeats what a stranger sent must not carry more than ``most`` characters of it.
    """
    # A long text is cut before `repr`, which would copy it several times over.
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    size = len(value) if isinstance(value, str | bytes) else len(text)
    if size <= most and len(text) <= most + 2:
        return text
    return f"{text[:most]}... ({size:,} characters)"


def cut(text: str, most: int = MOST_CUT) -> str:
    """A text that holds words of a stranger, for a message; cut where it is long."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


_FLOOD = re.compile(r"\S{300,}")


def tamed(message: str) -> str:
    """A message without endless words: a photograph in base64 must never flood a terminal."""
    if len(message) < 300:
        return message
    return _FLOOD.sub(lambda word: cut(word[0], MOST_SHOWN), message)


def cut_path(name: str) -> str:
    """A path for a message, cut in the middle: its end tells most."""
    if len(name) <= MOST_CUT // 2:
        return name
    return f"{name[: MOST_SHOWN // 2]}...{name[-MOST_SHOWN // 2 :]} ({len(name):,} characters)"
