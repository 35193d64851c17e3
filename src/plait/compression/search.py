"""The smallest int8 graphs whose recall on the validation split is within tolerance.

Candidates stand in the order of their size: everything int8; then more and more groups of layers
in float, those first that harm the embeddings most when they alone are int8. The harm is measured
only when the first candidate loses too much. The first candidate within tolerance is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from plait.compression.quantiser import Inputs, Made, Quantiser, harms
from plait.runtime.sessions import Session

FLOATING: Final = (0, 1, 2, 4, 7, 11, 16)
"""How many groups of all towers together stay float, one candidate after the other."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """Int8 graphs of all towers.

    Attributes:
        floating: by tower the numbers of the groups that stay float.
        made: by tower its files.
        recall: recall@1 on the validation split.
        lost: points of it.
    """

    floating: Mapping[str, Sequence[int]]
    made: Mapping[str, Made]
    recall: float
    lost: float

    @property
    def bytes(self) -> int:
        """Of all graphs."""
        return sum(made.bytes for made in self.made.values())

    def to_json(self, groups: Mapping[str, int]) -> dict[str, Any]:
        """For the report."""
        return {
            "bytes": self.bytes,
            "groups_in_float": {name: list(places) for name, places in self.floating.items()},
            "groups": dict(groups),
            "validation_recall": round(self.recall, 3),
            "validation_lost": round(self.lost, 3),
        }


@dataclass
class Int8Search:
    """Searches one model's int8 graphs.

    Args:
        quantisers: by tower.
        reference: by tower the float graph, open.
        probes: by tower inputs that calibration did not see.
        recall: of open int8 graphs by tower, recall@1 on the validation split.
        before: that of the model that is compressed.
        tolerance: points of recall@1 that may be lost.
        threads: of inference.
        tell: is told what is tried.
    """

    quantisers: Mapping[str, Quantiser]
    reference: Mapping[str, Session]
    probes: Mapping[str, Sequence[Inputs]]
    recall: Callable[[Mapping[str, Session]], float]
    before: float
    tolerance: float
    threads: int | None = None
    tell: Tell = lambda line: None
    tried: list[Candidate] = field(default_factory=list)
    harm: dict[str, list[float]] = field(default_factory=dict)

    def run(self) -> Candidate | None:
        """The first candidate within tolerance; None when even all in float is not."""
        order: list[tuple[str, int]] | None = None
        total = sum(len(quantiser.groups) for quantiser in self.quantisers.values())
        for count in (*(n for n in FLOATING if n < total), total):
            if count and order is None:
                order = self._order()
            chosen = (order or [])[:count]
            floating = {
                name: sorted(number for tower, number in chosen if tower == name)
                for name in self.quantisers
            }
            candidate = self._try(floating, f"float{count}")
            self.tried.append(candidate)
            self.tell(
                f"{count} of {total} groups in float: {candidate.bytes / 2**20:.1f} MiB, recall@1 "
                f"{candidate.recall:.2f}, {candidate.lost:+.2f} points lost"
            )
            if candidate.lost <= self.tolerance:
                return candidate
        return None

    def _try(self, floating: Mapping[str, Sequence[int]], stem: str) -> Candidate:
        """Towers whose groups are as in the candidate before keep its files."""
        last = self.tried[-1] if self.tried else None
        made = {}
        for name, quantiser in self.quantisers.items():
            if last is not None and list(last.floating[name]) == list(floating[name]):
                made[name] = last.made[name]
            else:
                self.tell(f"quantising the {name} tower")
                made[name] = quantiser.make(floating[name], f"{name}.{stem}")
        sessions = {
            name: quantiser.open(made[name], self.threads)
            for name, quantiser in self.quantisers.items()
        }
        recall = self.recall(sessions)
        return Candidate(floating, made, recall, self.before - recall)

    def _order(self) -> list[tuple[str, int]]:
        """Groups of all towers, the most harmful first."""
        found = []
        for name, quantiser in self.quantisers.items():
            self.harm[name] = harms(
                quantiser,
                self.reference[name],
                self.probes[name],
                threads=self.threads,
                tell=lambda line, name=name: self.tell(f"{name} tower: {line}"),  # type: ignore[misc]
            )
            found += [(harm, name, number) for number, harm in enumerate(self.harm[name])]
        return [(name, number) for _, name, number in sorted(found, key=lambda one: -one[0])]
