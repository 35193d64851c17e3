"""`PairDataset`: the samples of one source, with their splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from plait.data.base import splits
from plait.data.base.sample import BadRow, Sample


class PairDataset(Sequence[Sample]):
    """The samples of a source, in the order of their first rows.

    Args:
        samples: all samples.
        format: what the source is, e.g. ``imagefolder``.
        root: the folder or file that was opened, None when there is none.
        skipped: the rows left out under ``on_bad_row="skip"``.
        detected: why the format was taken, in a sentence.
        notes: what else a user should know, counted where it can be (`plait.data.base.notes.Note`):
            files that were not read, the folder images came from.
        assigned: the split of each sample; None: see `plait.data.base.splits.assign`.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        format: str,
        root: Path | None = None,
        skipped: Sequence[BadRow] = (),
        *,
        detected: str = "",
        notes: Sequence[str] = (),
        assigned: Sequence[str] | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.format, self.root, self.detected = format, root, detected
        self.skipped, self.notes = tuple(skipped), tuple(notes)
        self._assigned = None if assigned is None else tuple(assigned)
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> PairDataset: ...
    def __getitem__(self, index: int | slice) -> Sample | PairDataset:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __repr__(self) -> str:
        return f"PairDataset({self.format}, {len(self)} samples, {self.texts} texts)"

    def _repr_html_(self) -> str:
        from plait.data.base.display import samples_html

        return samples_html(self.samples, repr(self))

    @property
    def ids(self) -> list[str]:
        """The id of each sample."""
        return [sample.id for sample in self.samples]

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return sum(len(sample.texts) for sample in self.samples)

    @property
    def splits(self) -> tuple[str, ...]:
        """The split of each sample."""
        if self._assigned is None:
            self._assigned = tuple(splits.assign(self.samples))
        return self._assigned

    @property
    def split_counts(self) -> dict[str, int]:
        """Samples by split."""
        counts = Counter(self.splits)
        return {name: counts[name] for name in splits.SPLITS}

    @property
    def language_counts(self) -> dict[str, int]:
        """Texts by language; texts of unknown language are left out."""
        counts = Counter(name for sample in self.samples for name in sample.languages if name)
        return dict(counts.most_common())

    def split(self, name: str) -> PairDataset:
        """The samples of one split: ``train``, ``validation``, ``test`` or ``all``.

        Raises:
            DataError: no such split.
        """
        name = splits.checked(name)
        if name == "all":
            return self
        return self.select([i for i, split in enumerate(self.splits) if split == name])

    def select(self, indices: Iterable[int]) -> PairDataset:
        """These samples, which keep their splits."""
        chosen = [int(index) for index in indices]
        return PairDataset(
            [self.samples[i] for i in chosen],
            self.format,
            self.root,
            self.skipped,
            detected=self.detected,
            notes=self.notes,
            assigned=[self.splits[i] for i in chosen],
        )

    def group_numbers(self) -> np.ndarray:
        """(n,) int64: equal where samples share a group, counted by first appearance."""
        numbers: dict[str, int] = {}
        return np.array(
            [numbers.setdefault(sample.group_key, len(numbers)) for sample in self.samples],
            dtype=np.int64,
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits of ids, groups, splits, texts, labels and file sizes.

        Raises:
            DataError: a file vanished since the set was opened.
        """
        if self._fingerprint is None:
            sha = hashlib.sha256()
            for sample, split in zip(self.samples, self.splits, strict=True):
                refs = [sample.image, *(sample.media[name] for name in sorted(sample.media))]
                sizes = [ref.size for ref in refs if ref is not None]
                labels = sorted(sample.labels.items())
                told = (sample.id, sample.group, split, sample.texts, labels, sizes)
                sha.update(repr(told).encode())
            self._fingerprint = sha.hexdigest()[:16]
        return self._fingerprint
