"""What a filter means: as a function of a row in memory, and as SQL for LanceDB.

Both see a row as texts: its columns, and its `facts`, the scalar metadata written as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from plait.retrieval.filters import COLUMNS, All, Compare, Filter, Not, Some, Value

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
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
    compare = part
    return lambda row: _holds(compare, row.get(compare.column))


def _holds(compare: Compare, text: str | None) -> bool:
    if compare.operator == "null":
        return text is None
    if text is None:
        return False
    value = compare.value
    if compare.operator == "like":
        assert isinstance(value, str)
        return _like(value.lower()).fullmatch(text.lower()) is not None
    if isinstance(value, bool):
        return _ordered(compare.operator, text, "true" if value else "false")
    if isinstance(value, float):
        if _NUMBER.fullmatch(text) is None or not math.isfinite(float(text)):
            return False
        return _ordered(compare.operator, float(text), value)
    assert isinstance(value, str)
    return _ordered(compare.operator, text, value)


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


def _like(pattern: str) -> re.Pattern[str]:
    parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    return re.compile("".join(parts), re.DOTALL)


def to_sql(part: Filter) -> str:
    """The same as a condition on LanceDB's table (see `plait.retrieval.lance` for its columns).

    Only names of fixed columns and quoted literals enter the text. Every comparison is made
    two-valued with ``coalesce``, so that ``NOT`` means the same as in memory.
    """
    if isinstance(part, Not):
        return f"(NOT {to_sql(part.part)})"
    if isinstance(part, All | Some):
        if not part.parts:
            return "true" if isinstance(part, All) else "false"
        joint = " AND " if isinstance(part, All) else " OR "
        return "(" + joint.join(to_sql(each) for each in part.parts) + ")"
    column = part.column
    if column not in COLUMNS:
        column = f"json_get_string(facts, {sql_string(column)})"
    if part.operator == "null":
        return f"({column} IS NULL)"
    return f"coalesce({_sql_comparison(column, part.operator, part.value)}, false)"


def _sql_comparison(column: str, operator: str, value: Value | None) -> str:
    if operator == "like":
        assert isinstance(value, str)
        pattern = value.lower().replace("\\", "\\\\")  # a backslash would escape in SQL's LIKE
        return f"lower({column}) LIKE {sql_string(pattern)}"
    if isinstance(value, bool):
        return f"{column} {operator} {sql_string('true' if value else 'false')}"
    if isinstance(value, float):
        number = f"try_cast({column} AS double)"
        limits = f"abs({number}) <= {_LARGEST}"
        return f"({limits} AND {number} {operator} CAST({sql_string(repr(value))} AS double))"
    assert isinstance(value, str)
    return f"{column} {operator} {sql_string(value)}"


def sql_string(text: str) -> str:
    """A literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
