"""Filters of a search, e.g. ``split = 'test' and text like '%cat%' and year >= 2020``.

A filter is parsed into a small tree here; each store turns the tree into its own form. Nothing that
a user types reaches a database as code, and a misspelt column is named instead of matching nothing.

    expression = term {"or" term}            term = factor {"and" factor}
    factor = "not" factor | "(" expression ")" | comparison
    comparison = column ("=" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
               | column ["not"] "in" "(" value {"," value} ")"
               | column ["not"] "like" string            % any characters, _ one; case is ignored
               | column "is" ["not"] "null"
    value = 'text, a quotation mark doubled' | number | true | false

Columns are id, text, path, modality, language, and the keys of the metadata; names with other
characters than letters, digits and underscores go in double quotation marks. A number compares with
values that are numbers or read as one ("2020" in a CSV). A comparison with a value that is missing
or of another kind is false, so its ``not`` is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from plait.core.errors import SearchIndexError, did_you_mean

COLUMNS = ("id", "text", "path", "modality", "language")  # what every row has, besides metadata

Value: TypeAlias = str | float | bool


@dataclass(frozen=True)
class Compare:
    """``column operator value``; the operator is one of ``= < <= > >= like null``."""

    column: str
    operator: str
    value: Value | None = None


@dataclass(frozen=True)
class Not:
    """The opposite of a filter."""

    part: Filter


@dataclass(frozen=True)
class All:
    """Every part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Some:
    """At least one part holds."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = Compare | Not | All | Some
Where: TypeAlias = str | Mapping[str, object] | None

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^']|'')*')
      | (?P<name>"(?:[^"]|"")*"|[^\W\d]\w*)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "like", "is", "null", "true", "false")
_SIGNS = {"=": "=", "==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_DEEPEST = 50


def parse_where(where: Where, known: Iterable[str]) -> Filter | None:
    """A filter as a tree; None for no filter.

    Args:
        where: an expression as above, or a mapping of column to value (equal) or list (one of).
        known: metadata keys of the index.

    Raises:
        SearchIndexError: what cannot be read and where, or an unknown column.
    """
    if where is None:
        return None
    columns = (*COLUMNS, *known)
    if isinstance(where, str):
        return _Parser(where, columns).parse()
    parts = tuple(_of_mapping(name, value, columns) for name, value in where.items())
    return All(parts) if parts else None


def _of_mapping(name: str, value: object, columns: Sequence[str]) -> Filter:
    _check_column(name, columns)
    if value is None:
        return Compare(name, "null")
    if isinstance(value, str | int | float):
        return Compare(name, "=", _value(value))
    if isinstance(value, Sequence) and all(isinstance(item, str | int | float) for item in value):
        return Some(tuple(Compare(name, "=", _value(item)) for item in value))
    raise SearchIndexError(
        f"filter: {name!r} must be given a text, a number, a truth value or a list of them"
    )


def _value(value: str | int | float) -> Value:
    return value if isinstance(value, str | bool) else float(value)  # bool is an int


def _check_column(name: str, columns: Sequence[str]) -> None:
    if name not in columns:
        raise SearchIndexError(
            f"filter: the index has no column {name!r}{did_you_mean(name, columns)} "
            f"(it has {', '.join(columns)})"
        )


class _Parser:
    """Recursive descent over the grammar above."""

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self.text, self.columns = text, columns
        self.tokens = _tokens(text)
        self.place = 0
        self.depth = 0

    def parse(self) -> Filter:
        found = self._expression()
        if self.place < len(self.tokens):
            raise self._error("'and', 'or' or the end")
        return found

    def _expression(self) -> Filter:
        parts = [self._term()]
        while self._take("or"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _term(self) -> Filter:
        parts = [self._factor()]
        while self._take("and"):
            parts.append(self._factor())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _factor(self) -> Filter:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise SearchIndexError(f"filter: nested more than {_DEEPEST} deep")
        if self._take("not"):
            found: Filter = Not(self._factor())
        elif self._take("("):
            found = self._expression()
            self._need(")")
        else:
            found = self._comparison()
        self.depth -= 1
        return found

    def _comparison(self) -> Filter:
        kind, token = self._next("a column")
        if kind != "name":
            self.place -= 1
            raise self._error("a column")
        _check_column(token, self.columns)
        for sign, operator in _SIGNS.items():
            if self._take(sign):
                return Compare(token, operator, self._literal())
        if self._take("!=") or self._take("<>"):
            return Not(Compare(token, "=", self._literal()))
        if self._take("is"):
            negated = self._take("not")
            self._need("null")
            return Not(Compare(token, "null")) if negated else Compare(token, "null")
        negated = self._take("not")
        if self._take("in"):
            found: Filter = self._list(token)
        elif self._take("like"):
            found = Compare(token, "like", self._string())
        else:
            raise self._error("a comparison (=, !=, <, <=, >, >=, in, like, is null)")
        return Not(found) if negated else found

    def _list(self, column: str) -> Filter:
        self._need("(")
        values = [self._literal()]
        while self._take(","):
            values.append(self._literal())
        self._need(")")
        return Some(tuple(Compare(column, "=", value) for value in values))

    def _literal(self) -> Value:
        kind, token = self._next("a value")
        if kind == "string":
            return token
        if kind == "number":
            return float(token)
        if kind == "word" and token in ("true", "false"):
            return token == "true"
        self.place -= 1
        raise self._error("a value ('text', a number, true or false)")

    def _string(self) -> str:
        kind, token = self._next("a text")
        if kind != "string":
            self.place -= 1
            raise self._error("a text in single quotation marks")
        return token

    def _take(self, token: str) -> bool:
        if self.place < len(self.tokens) and self.tokens[self.place][:2] in (
            ("sign", token),
            ("word", token),
        ):
            self.place += 1
            return True
        return False

    def _need(self, token: str) -> None:
        if not self._take(token):
            raise self._error(repr(token))

    def _next(self, wanted: str) -> tuple[str, str]:
        if self.place == len(self.tokens):
            raise self._error(wanted)
        kind, token, _ = self.tokens[self.place]
        self.place += 1
        return kind, token

    def _error(self, wanted: str) -> SearchIndexError:
        if self.place == len(self.tokens):
            return SearchIndexError(f"filter: {self.text!r} ends where {wanted} should follow")
        _, token, start = self.tokens[self.place]
        return SearchIndexError(
            f"filter: {wanted} should stand at character {start + 1} of {self.text!r}, not {token!r}"
        )


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """(kind, value, where it starts); kinds are string, name, word, number and sign."""
    found: list[tuple[str, str, int]] = []
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise SearchIndexError(
                f"filter: cannot read {text!r} at character {start + 1}, {text[start]!r} "
                "(texts go in single quotation marks)"
            )
        kind, value = match.lastgroup, match.group(match.lastgroup)
        start = match.start(match.lastgroup)
        if kind == "string":
            value = value[1:-1].replace("''", "'")
        elif kind == "name" and value.startswith('"'):
            value = value[1:-1].replace('""', '"')
        elif kind == "name" and value.lower() in _WORDS:
            kind, value = "word", value.lower()
        found.append((kind, value, start))
        place = match.end()
    return found
