"""What the filters of an index can name: its columns, their kinds, and the values worth trying."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from plait.retrieval.store.filters import COLUMNS, is_plain_name
from plait.retrieval.store.predicate import to_number

MOST_ROWS = 50_000  # that are looked at
MOST_VALUES = 12  # of a column that are told; one with far more has none that are typical
_FEW = 50  # different values of a column of texts of which the commonest are worth telling
_LONGEST = 60  # characters of a value worth telling

TEXT, NUMBER, TRUTH = "text", "number", "truth"


@dataclass(frozen=True)
class Column:
    """A column as a filter sees it.

    Attributes:
        name: as the index has it; `quoted` writes it for a filter.
        kind: ``text``, ``number`` or ``truth``.
        values: the commonest, the most frequent first; empty where they are too many.
        least, greatest: of numbers.
        missing: rows that have no value here.
        known: rows that have one.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    least: float | None = None
    greatest: float | None = None
    missing: int = 0
    known: int = 1

    def equal(self, value: str) -> str:
        """The filter for one of the values."""
        return f"{quoted(self.name)} = {value if self.kind != TEXT else _string(value)}"

    def suggested(self) -> list[str]:
        """Filters worth trying: each value, else the range of numbers or a word; and the gaps.

        None for a column of which filters see nothing (lists, empty ones).
        """
        if not self.known:
            return []
        name = quoted(self.name)
        found = [self.equal(value) for value in self.values]
        if not found and self.least is not None:
            found = [f"{name} >= {self.least:.15g}", f"{name} <= {self.greatest:.15g}"]
        if not found and self.kind == TEXT:
            found = [f"{name} LIKE '%...%'"]
        return [*found, f"{name} IS NULL"] if self.missing else found


def columns_of_facts(
    facts: Sequence[Mapping[str, str | None]], known: Iterable[str]
) -> list[Column]:
    """The columns of rows.

    Args:
        facts: what filters see of the rows (`plait.retrieval.store.store.VectorStore.facts`).
        known: metadata keys of the index.
    """
    return [_column(name, facts) for name in dict.fromkeys((*known, *COLUMNS))]


def _column(name: str, facts: Sequence[Mapping[str, str | None]]) -> Column:
    counts = Counter(value for row in facts if (value := row.get(name)) is not None)
    missing = len(facts) - counts.total()
    numbers = [to_number(value) for value in counts]
    known = [number for number in numbers if number is not None]
    if counts and len(known) == len(counts):
        few = tuple(sorted(counts, key=float)) if len(counts) <= MOST_VALUES else ()
        return Column(name, NUMBER, few, min(known), max(known), missing, counts.total())
    kind = TRUTH if counts and counts.keys() <= {"true", "false"} else TEXT
    # Paths tell of the machine, and what stands once each is no group of rows.
    grouped = name != "path" and len(counts) <= _FEW and counts.total() > len(counts)
    common = [value for value, _ in counts.most_common() if _is_short(value)]
    return Column(
        name,
        kind,
        tuple(common[:MOST_VALUES]) if grouped else (),
        None,
        None,
        missing,
        counts.total(),
    )


def _is_short(value: str) -> bool:
    """Whether it is a line of text that can be shown and typed."""
    return 0 < len(value) <= _LONGEST and value.isprintable()


def quoted(name: str) -> str:
    """A column's name as a filter takes it."""
    return name if is_plain_name(name) else '"' + name.replace('"', '""') + '"'


def _string(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
