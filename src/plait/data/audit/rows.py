"""What the parts of the audit share: the samples with their places, and a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plait.core.errors import MOST_CUT, tamed
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.readers.assemble import Place


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    Attributes:
        kind: see the table in `plait.data.audit.audit`.
        severity: ``error``, ``warning`` or ``note``.
        path, row: the file and the row in it (line, number or key) at fault.
        id: of the sample, or empty where the row gave none.
        detail: what is wrong, in words.
    """

    kind: str
    severity: Literal["error", "warning", "note"]
    path: str
    row: int | str | None
    id: str
    detail: str

    def __post_init__(self) -> None:
        if len(self.detail) > MOST_CUT:
            object.__setattr__(self, "detail", tamed(self.detail))

    @property
    def where(self) -> str:
        """For messages, e.g. ``captions.csv, row 17``."""
        return self.path if self.row is None else f"{self.path}, row {self.row}"


@dataclass(frozen=True, slots=True)
class Audited:
    """Samples as `plait.data.readers.assemble.Traced` has them, and their splits."""

    samples: Sequence[Sample]
    splits: Sequence[str]
    places: Sequence[Sequence[Place]]
    conflicts: Sequence[Sequence[str]]
    format: str

    @classmethod
    def of(cls, dataset: PairDataset) -> Audited:
        """Of a data set that is open: every text has the place of its sample's first row."""
        places: list[list[Place]] = [
            [(sample.where, None)] * max(1, len(sample.texts)) for sample in dataset
        ]
        conflicts: list[list[str]] = [[] for _ in dataset]
        return cls(dataset.samples, dataset.splits, places, conflicts, dataset.format)
