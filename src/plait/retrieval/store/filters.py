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

Filters are limited (`MOST_CHARACTERS`, `MOST_COMPARISONS`, `MOST_VALUES`, `DEEPEST`,
`MOST_PATTERN`, `MOST_PERCENT`), so that no store plans or evaluates one for long. Comparisons for
equality of one column that ``or`` joins count as one, with many values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from plait.core.errors import SearchIndexError, did_you_mean, shown

COLUMNS = ("id", "text", "path", "modality", "language")  # what every row has, besides metadata

MOST_CHARACTERS = 50_000  # of a filter
MOST_COMPARISONS = 100
MOST_VALUES = 2000  # of all comparisons together
DEEPEST = 20  # brackets and nots within one another
MOST_PATTERN = 500  # characters of a pattern
MOST_PERCENT = 20  # of a pattern: each makes the search for it longer
_COLUMNS_SHOWN = 30

Value: TypeAlias = str | float | bool


@dataclass(frozen=True)
class Compare:
    """``column operator value``; the operator is one of ``= < <= > >= like null``."""

    column: str
    operator: str
    value: Value | None = None


@dataclass(frozen=True)
class Among:
    """The column equals one of the values, each as in a `Compare`."""

    column: str
    values: tuple[Value, ...]


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


Filter: TypeAlias = Compare | Among | Not | All | Some
Where: TypeAlias = str | Mapping[str, object] | None

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^']|'')*')
      | (?P<name>"(?:[^"]|"")*"|[^\W\d]\w*)
      | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "like", "is", "null", "true", "false")
_AROUND = 90  # characters of a text or a token in a message that repeats both
_SIGNS = {"=": "=", "==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def is_plain_name(name: str) -> bool:
    """Whether a column's name stands in a filter without quotation marks."""
    match = _TOKEN.fullmatch(name)
    return match is not None and match["name"] == name and name.lower() not in _WORDS


def parse_where(where: Where, known: Iterable[str]) -> Filter | None:
    """A filter as a tree; None for no filter.

    Args:
        where: an expression as above, or a mapping of column to value (equal) or list (one of).
        known: metadata keys of the index.

    Raises:
        SearchIndexError: what cannot be read and where, an unknown column, or too much of something.
    """
    if where is None:
        return None
    columns = (*COLUMNS, *known)
    if isinstance(where, str):
        _check_characters(len(where))
        _check_text(where)
        found = _Parser(where, columns).parse()
    elif isinstance(where, Mapping):
        parts = [_of_mapping(name, value, columns) for name, value in where.items()]
        if not parts:
            return None
        found = All(tuple(parts))
    else:
        raise SearchIndexError(
            f"a filter is a text or a mapping of columns to values, not {type(where).__name__}"
        )
    check_filter(found)
    return found


def check_filter(part: Filter) -> None:
    """Refuses a filter that would keep a store busy for long.

    Raises:
        SearchIndexError: it is above a limit; both are named.
    """
    comparisons = values = characters = 0
    for leaf in _leaves(part):
        comparisons += 1
        held = leaf.values if isinstance(leaf, Among) else (leaf.value,)
        values += len(held)
        characters += sum(len(value) for value in held if isinstance(value, str))
        if isinstance(leaf, Compare) and leaf.operator == "like":
            _check_pattern(leaf.value)
    _check_characters(characters)
    for count, most, what in (
        (comparisons, MOST_COMPARISONS, "comparisons"),
        (values, MOST_VALUES, "values"),
    ):
        if count > most:
            raise SearchIndexError(f"filter: {count:,} {what}, and the limit is {most:,}")


def _leaves(part: Filter) -> Iterator[Compare | Among]:
    if isinstance(part, Not):
        yield from _leaves(part.part)
    elif isinstance(part, All | Some):
        for each in part.parts:
            yield from _leaves(each)
    else:
        yield part


def _check_characters(count: int) -> None:
    if count > MOST_CHARACTERS:
        raise SearchIndexError(
            f"filter: {count:,} characters, and the limit is {MOST_CHARACTERS:,}"
        )


def _check_pattern(pattern: Value | None) -> None:
    assert isinstance(pattern, str)
    if len(pattern) > MOST_PATTERN or pattern.count("%") > MOST_PERCENT:
        raise SearchIndexError(
            f"filter: the pattern {shown(pattern)} is above the limit of {MOST_PATTERN} characters "
            f"with at most {MOST_PERCENT} %"
        )


def _check_text(text: str) -> None:
    """Refuses what cannot be written as UTF-8, and the zero byte, at which some stores stop."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SearchIndexError(
            f"filter: character {error.start + 1} is half of a surrogate pair"
        ) from None
    if "\0" in text:
        raise SearchIndexError(f"filter: character {text.index(chr(0)) + 1} is a zero byte")


def _of_mapping(name: object, value: object, columns: Sequence[str]) -> Filter:
    _check_column(name, columns)
    assert isinstance(name, str)
    if value is None:
        return Compare(name, "null")
    if isinstance(value, str | int | float):
        return Compare(name, "=", _value(name, value))
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return Among(name, tuple(_value(name, item) for item in value))
    raise _unfit(name)


def _value(name: str, value: object) -> Value:
    if isinstance(value, str):
        _check_text(value)
    if isinstance(value, str | bool):  # bool is an int
        return value
    if not isinstance(value, int | float):
        raise _unfit(name)
    try:
        return _finite(float(value))
    except OverflowError:
        raise _too_large() from None


def _unfit(name: str) -> SearchIndexError:
    return SearchIndexError(
        f"filter: {shown(name)} must be given a text, a number, a truth value or a list of them"
    )


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise _too_large()
    return number


def _too_large() -> SearchIndexError:
    return SearchIndexError("filter: a number is not finite, or too large for a float64")


def _check_column(name: object, columns: Sequence[str]) -> None:
    if name not in columns:
        hint = did_you_mean(name, columns) if isinstance(name, str) else ""
        listed = ", ".join(shown(one)[1:-1] for one in columns[:_COLUMNS_SHOWN])
        more = len(columns) - _COLUMNS_SHOWN
        raise SearchIndexError(
            f"filter: the index has no column {shown(name)}{hint} "
            f"(it has {listed}{f' and {more:,} more' if more > 0 else ''})"
        )


def _any_of(parts: Sequence[Filter]) -> Filter:
    """At least one holds; comparisons of one column for equality become one `Among`."""
    equal: dict[str, list[Value]] = {}
    others: list[Filter] = []
    for part in parts:
        if isinstance(part, Compare) and part.operator == "=" and part.value is not None:
            equal.setdefault(part.column, []).append(part.value)
        elif isinstance(part, Among):
            equal.setdefault(part.column, []).extend(part.values)
        else:
            others.append(part)
    merged: list[Filter] = [
        Compare(column, "=", values[0]) if len(values) == 1 else Among(column, tuple(values))
        for column, values in equal.items()
    ]
    merged += others
    return merged[0] if len(merged) == 1 else Some(tuple(merged))


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
        return _any_of(parts)

    def _term(self) -> Filter:
        parts = [self._factor()]
        while self._take("and"):
            parts.append(self._factor())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _factor(self) -> Filter:
        self.depth += 1
        if self.depth > DEEPEST:
            raise SearchIndexError(f"filter: nested more than {DEEPEST} deep")
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
        return Among(column, tuple(values))

    def _literal(self) -> Value:
        kind, token = self._next("a value")
        if kind == "string":
            return token
        if kind == "number":
            return _finite(float(token))
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
            return SearchIndexError(f"filter: {shown(self.text)} ends where {wanted} should follow")
        _, token, start = self.tokens[self.place]
        return SearchIndexError(
            f"filter: {wanted} should stand at character {start + 1} of "
            f"{shown(self.text, _AROUND)}, not {shown(token, _AROUND)}"
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
                f"filter: cannot read {shown(text)} at character {start + 1}, {text[start]!r} "
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
