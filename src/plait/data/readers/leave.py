"""Where the files that rows name may lie: who wrote a table must not choose what of a disk is read.

By default that is the folder of the table and the source that the user opened. Further folders are
stated (``root``), or the check is lifted (``allow_outside``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from plait.core.errors import DataError, shown
from plait.core.files import is_below, own_folders
from plait.data.base.sample import BadRow

OUTSIDE = "outside-file"
_EXAMPLES = 3
AnyRow = TypeVar("AnyRow")


@dataclass(slots=True)
class Leave:
    """What a user allows besides the table's own folder.

    Attributes:
        roots: folders below which named files may lie.
        anywhere: no check at all.
        common: the folder that every file refused so far lies in.
    """

    roots: tuple[Path, ...] = ()
    anywhere: bool = False
    common: str = ""

    @classmethod
    def of(
        cls, root: str | Path | Sequence[str | Path] | None = None, allow_outside: bool = False
    ) -> Leave:
        """From the options of `plait.data.open_dataset`. Raises `DataError`: no such folder."""
        roots = [] if root is None else [root] if isinstance(root, str | Path) else list(root)
        for one in roots:
            if not Path(one).is_dir():
                raise DataError("is no folder: --root names one below which pictures lie", path=one)
        return cls(tuple(map(Path, roots)), allow_outside)

    def permits(self, path: Path, own: Iterable[Path]) -> bool:
        """Whether a path, its links followed, lies in a folder of the source's own or a root."""
        if self.anywhere:
            return True
        return is_below(path, own_folders([*own, *self.roots]))

    def refusal(self, name: str, place: Path) -> str:
        """Why a row that names a file outside gives no sample (of the kind `OUTSIDE`)."""
        folder = os.path.dirname(os.path.realpath(place))  # noqa: PTH120
        self.common = os.path.commonpath([self.common, folder]) if self.common else folder
        return (
            f"{shown(name)} lies outside the folder of the data: --root FOLDER states where files "
            "may lie, --allow-outside lets them lie anywhere"
        )

    def check(self, path: Path, own: Sequence[Path]) -> None:
        """Raises `DataError` for a file of the source itself that is a link out of it."""
        if not self.permits(path, own):
            raise DataError(f"is a link: {self.refusal(path.name, path)}", path=path)

    def refusing(self, rows: Iterator[AnyRow], *, count: bool) -> Iterator[AnyRow]:
        """The rows, until one names a file outside.

        Raises:
            DataError: with how many do (where all are to be counted), examples, and what mends it.
        """
        for row in rows:
            if isinstance(row, BadRow) and row.kind == OUTSIDE:
                raise self._error(row, rows if count else iter(()))
            yield row

    def _error(self, first: BadRow, rest: Iterator[AnyRow]) -> DataError:
        examples, count = [first], 1
        for row in rest:
            if isinstance(row, BadRow) and row.kind == OUTSIDE:
                count += 1
                if len(examples) < _EXAMPLES:
                    examples.append(row)
        told = ", ".join(f"{_name(one)} (row {one.row})" for one in examples)
        folder = self.common if len(Path(self.common).parts) > 1 else "FOLDER"
        rows_name = "1 row names a file" if count == 1 else f"{count} rows name files"
        return DataError(
            f"{rows_name} outside the folder of the data: {told}{', ...' if count > 3 else ''}; if "
            f"you trust the table, --root {folder} lets files lie below that folder too, "
            "--allow-outside anywhere (root= and allow_outside= in Python, data.root and "
            "data.allow_outside in recipes)",
            path=first.path,
        )


def _name(row: BadRow) -> str:
    return row.problem.split(" lies outside ", 1)[0]
