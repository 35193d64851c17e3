"""A `Sample`, and a row that is none. Where the bytes of its pictures are: `plait.core.media`.

Torch-free: the runtime of a bundle uses these too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plait.core.errors import DataError, tamed
from plait.core.errors import cut as short
from plait.core.media import MediaRef
from plait.core.notebook import cut


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing shown, with every text that tells of it.

    Attributes:
        id: stable across file formats: see `plait.data.readers.assemble`.
        where: the row it came from, e.g. ``captions.csv, row 17``.
        image: its picture.
        texts: every caption of the picture; all of them are true.
        languages: of each text (``en``, ``zh``), or () when unknown.
        group: samples of one group show the same thing: they share a split and are positives of
            one another. None: the sample is a group of its own.
        split: ``train``, ``validation`` or ``test`` where the source says so.
        media: further modalities by name (``audio``, ``video``, ``sensor``).
        labels: supervision beside texts (a class, a question with its answers).
        meta: the remaining columns, for reports and filters.
        derived: whether the id was made from the name of the picture.
    """

    id: str
    where: str
    image: MediaRef | None = None
    texts: tuple[str, ...] = ()
    languages: tuple[str | None, ...] = ()
    group: str | None = None
    split: str | None = None
    media: Mapping[str, MediaRef] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    derived: bool = False

    def __repr__(self) -> str:
        shown = "no picture" if self.image is None else self.image.name
        return (
            f"Sample({self.id!r}, {shown}, {len(self.texts)} texts: {cut(' | '.join(self.texts))})"
        )

    def _repr_html_(self) -> str:
        from plait.data.base.display import sample_html

        return sample_html(self)

    @property
    def group_key(self) -> str:
        """The group, or the id of a sample that is a group of its own."""
        return self.id if self.group is None else self.group


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that gave no sample, and why.

    Attributes:
        path: the file that states the row.
        row: line, row number (from 1) or key in that file.
        problem: what is wrong, in words that name the mend.
        kind: one word for counting, e.g. ``missing-file`` (see `plait.data.audit.audit`).
        bare: the row of the picture alone, where only its text is missing.
    """

    path: str
    row: int | str | None
    problem: str
    kind: str
    bare: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "problem", tamed(self.problem))

    @property
    def where(self) -> str:
        """For messages, e.g. ``captions.csv, row 17``."""
        return self.path if self.row is None else f"{self.path}, row {short(str(self.row))}"

    def error(self) -> DataError:
        """The same as an exception."""
        return DataError(self.problem, path=self.path, row=self.row)
