"""What a filter means: as a function of a row in memory, and as SQL for LanceDB.

Both see a row as texts: its columns, and its `facts`, the scalar metadata written as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plait.retrieval.store.filters import COLUMNS, All, Among, Compare, Filter, Not, Some, Value
from plait.retrieval.store.store import Row

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LARGEST = "1.7976931348623157e308"  # beyond it lie infinity and, in SQL's order, NaN


def facts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The scalar values as text, so that one rule compares them everywhere; others are left out."""
    found = {}
    for key, value in metadata.items():
        if isinstance(value, bool):
            found[key] = "true" if value else "false"
        elif isinstance(value, int | float) and math.isfinite(value):
            found[key] = (
                str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
            )
        elif isinstance(value, str):
            found[key] = value
    return found


def seen_by_filters(row: Row) -> dict[str, str | None]:
    """The row as filters see it."""
    return {
        **facts(row.metadata),
        "id": row.id,
        "text": "\n".join(row.texts) if row.texts else None,
        "path": row.path,
        "modality": row.modality,
        "language": row.language,
    }


def to_predicate(part: Filter) -> Callable[[Mapping[str, str | None]], bool]:
    """A function of a row's columns and facts by name; a name may be absent or None."""
    if isinstance(part, Not):
        inner = to_predicate(part.part)
        return lambda row: not inner(row)
    if isinstance(part, All | Some):
        inners = [to_predicate(each) for each in part.parts]
        if isinstance(part, All):
            return lambda row: all(each(row) for each in inners)
        return lambda row: any(each(row) for each in inners)
    if isinstance(part, Among):
        among, column = _among(part), part.column
        return lambda row: among(row.get(column))
    compare = part
    if compare.operator == "like":
        assert isinstance(compare.value, str)
        like = _like(compare.value.lower())
        return lambda row: (text := row.get(compare.column)) is not None and like(text.lower())
    return lambda row: _holds(compare, row.get(compare.column))


def _among(part: Among) -> Callable[[str | None], bool]:
    texts = {_text(value) for value in part.values if not isinstance(value, float)}
    numbers = {value for value in part.values if isinstance(value, float)}

    def holds(text: str | None) -> bool:
        if text is None:
            return False
        return text in texts or (bool(numbers) and to_number(text) in numbers)

    return holds


def _holds(compare: Compare, text: str | None) -> bool:
    if compare.operator == "null":
        return text is None
    if text is None:
        return False
    value = compare.value
    if isinstance(value, float):
        number = to_number(text)
        return number is not None and _ordered(compare.operator, number, value)
    assert value is not None
    return _ordered(compare.operator, text, _text(value))


def to_number(text: str) -> float | None:
    """What a text reads as; None for no number, and for one that is not finite."""
    number = float(text) if _NUMBER.fullmatch(text) is not None else math.inf
    return number if math.isfinite(number) else None


def _text(value: str | bool) -> str:
    """As it stands among the facts."""
    return value if isinstance(value, str) else "true" if value else "false"


def _ordered(operator: str, left: Any, right: Any) -> bool:
    if operator == "=":
        return bool(left == right)
    if operator == "<":
        return bool(left < right)
    if operator == "<=":
        return bool(left <= right)
    if operator == ">":
        return bool(left > right)
    assert operator == ">="
    return bool(left >= right)


def _like(pattern: str) -> Callable[[str], bool]:
    """Whether a text fits a pattern of LIKE.

    Between two ``%`` the first place that fits is as good as any later one, so nothing is tried
    twice: the time is at most (characters of the text) x (characters of the pattern).
    """
    pieces = [
        re.compile("".join("." if c == "_" else re.escape(c) for c in piece), re.DOTALL)
        for piece in pattern.split("%")
    ]
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return lambda text: first.fullmatch(text) is not None
    length = len(pattern) - pattern.rfind("%") - 1  # every piece fits texts of its own length only

    def fits(text: str) -> bool:
        found = first.match(text)
        for piece in pieces[1:-1]:
            if found is None:
                return False
            found = piece.search(text, found.end())
        end = len(text) - length
        return found is not None and found.end() <= end and last.match(text, end) is not None

    return fits


def to_sql(part: Filter, *, negated: bool = False) -> str:
    """The same, or its opposite, as a condition on LanceDB's table (see `plait.retrieval.store.lance`).

    Only names of fixed columns and quoted literals enter the text. Every comparison is made
    two-valued with ``coalesce``, so that ``NOT`` means the same as in memory. ``NOT`` stands before
    comparisons alone: the time of LanceDB's parser doubles with each ``NOT (`` within another.
    """
    if isinstance(part, Not):
        return to_sql(part.part, negated=not negated)
    if isinstance(part, All | Some):
        every = isinstance(part, All) != negated
        if not part.parts:
            return "true" if every else "false"
        parts = [to_sql(each, negated=negated) for each in part.parts]
        return parts[0] if len(parts) == 1 else f"({(' AND ' if every else ' OR ').join(parts)})"
    column = part.column
    if column not in COLUMNS:
        column = f"json_get_string(facts, {sql_string(column)})"
    if isinstance(part, Compare) and part.operator == "null":
        return f"({column} IS {'NOT ' if negated else ''}NULL)"
    if isinstance(part, Compare):
        condition = _sql_comparison(column, part.operator, part.value)
    else:
        condition = _sql_among(column, part.values)
    return f"{'NOT ' if negated else ''}coalesce({condition}, false)"


def _sql_comparison(column: str, operator: str, value: Value | None) -> str:
    if operator == "like":
        assert isinstance(value, str)
        pattern = value.lower().replace("\\", "\\\\")  # a backslash would escape in SQL's LIKE
        return f"lower({column}) LIKE {sql_string(pattern)}"
    if isinstance(value, float):
        return _sql_finite(column, f"{operator} {_sql_number(value)}")
    assert value is not None
    return f"{column} {operator} {sql_string(_text(value))}"


def _sql_among(column: str, values: Sequence[Value]) -> str:
    texts = sorted({_text(value) for value in values if not isinstance(value, float)})
    numbers = sorted({value for value in values if isinstance(value, float)})
    parts = []
    if texts:
        parts.append(f"{column} IN ({', '.join(map(sql_string, texts))})")
    if numbers:
        listed = ", ".join(map(_sql_number, numbers))
        # Each made two-valued: a text that is no number must not hide that it is among the texts.
        parts.append(f"coalesce({_sql_finite(column, f'IN ({listed})')}, false)")
    return " OR ".join(parts) if parts else "false"


def _sql_finite(column: str, condition: str) -> str:
    number = f"try_cast({column} AS double)"
    return f"(abs({number}) <= {_LARGEST} AND {number} {condition})"


def _sql_number(value: float) -> str:
    return f"CAST({sql_string(repr(value))} AS double)"


def sql_string(text: str) -> str:
    """A literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
