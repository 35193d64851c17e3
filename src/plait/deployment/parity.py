"""Exported graphs against the model in torch: every engine and precision, batch by length.

What is compared: a grid of batch sizes and text lengths, each text with padding of its own, and
each row alone, without padding, against the same row among 31 others.

Shape legend: B samples, N tokens, E features of the shared space or answers.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

import numpy as np

from plait.core import progress
from plait.core.errors import PlaitError, UserError
from plait.core.files import write_json, write_text
from plait.deployment.probe import Probe
from plait.engines.tower import least_cosine
from plait.runtime.choose import Chosen, runnable
from plait.runtime.manifest import Manifest, TowerEntry, read_manifest, write_manifest
from plait.runtime.sessions import Session, open_session

TOLERANCE: Final = 1e-4
"""The most that a value of a float32 graph may differ from torch's."""
BATCHES: Final = (1, 2, 3, 7, 16, 32)
PARITY_JSON, PARITY_MD = "parity.json", "parity.md"

Extent = Literal["quick", "full"]
Reference = Callable[[Mapping[str, np.ndarray]], np.ndarray]
Point = tuple[int, int | None]


@dataclass(frozen=True)
class Row:
    """What one graph showed in one engine and precision.

    Attributes:
        tower, engine, precision, file: which.
        points: pairs of batch and length that were compared.
        difference: the largest of any value to torch's; of logits, as a share of the largest.
        batch, length: where that was.
        least_cosine, mean_cosine: between rows and torch's.
        cobatch_difference: the largest between a row alone and the same row among others.
        cobatch_cosine: the largest of one minus their cosine.
        passed: whether a float32 graph keeps to `TOLERANCE`; None of other precisions, whose
            cosines are for the reader to judge.
    """

    tower: str
    engine: str
    precision: str
    file: str
    points: int
    difference: float
    batch: int
    length: int | None
    least_cosine: float
    mean_cosine: float
    cobatch_difference: float
    cobatch_cosine: float
    passed: bool | None


def checked_extent(value: str) -> Extent:
    """The extent of that name. Raises UserError for another."""
    for extent in get_args(Extent):
        if value == extent:
            return cast(Extent, extent)
    raise UserError(f"the extent of the parity report is {value!r}; it can be quick or full")


def grid(entry: TowerEntry, longest: int, extent: Extent = "quick") -> list[Point]:
    """Pairs of batch and text length to compare.

    Args:
        entry: a tower; one that reads no text of varying length has no lengths.
        longest: the most tokens of a text.
        extent: ``full`` is every batch of `BATCHES` by every length from 1 on; ``quick`` every
            length at a batch of 1, 2 or 3, and every batch at Fibonacci's lengths and the longest.
    """
    sizes = {size for port in entry.inputs.values() for size in port.shape}
    if "length" not in sizes:
        return [(batch, None) for batch in BATCHES]
    if extent == "full":
        return [(batch, length) for length in range(1, longest + 1) for batch in BATCHES]
    telling = {1, longest}
    before, after = 1, 2
    while after < longest:
        telling.add(after)
        before, after = after, before + after
    return [
        (batch, length)
        for length in range(1, longest + 1)
        for batch in (BATCHES if length in telling else (BATCHES[length % 3],))
    ]


def parity_report(
    folder: Path,
    references: Mapping[str, Reference],
    probe: Probe,
    *,
    extent: Extent = "quick",
    threads: int | None = None,
) -> dict[str, Any]:
    """Compares all graphs of a bundle with references, in every engine that is installed.

    Args:
        folder: the bundle.
        references: by tower, tensors to what its graph must give.
        probe: the inputs.
        extent: see `grid`.
        threads: inference threads; by default one a core.

    Raises:
        MissingExtra: no engine is installed.
    """
    manifest = read_manifest(folder)
    rows: list[Row] = []
    for modality, entry in manifest.towers.items():
        points = grid(entry, probe.longest, extent)
        sessions = [
            (one, open_session(folder / one.graph.file, one.engine, one.precision, threads=threads))
            for one in runnable(entry.graphs)
        ]
        compared = _compare(modality, entry, points, references[modality], probe, sessions)
        rows += compared
    return {
        "format": "plait-parity",
        "name": manifest.name,
        "against": "torch float32",
        "tolerance": TOLERANCE,
        "batches": list(BATCHES),
        "lengths": probe.longest,
        "extent": extent,
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }


class _Tally:
    """Differences of one session, gathered over the points."""

    def __init__(self, chosen: Chosen, session: Session, relative: bool) -> None:
        self.chosen, self.session, self.relative = chosen, session, relative
        self.difference, self.place = -1.0, (0, None)  # type: tuple[float, Point]
        self.least, self.cosines, self.rows = 1.0, 0.0, 0

    def compare(self, point: Point, found: np.ndarray, expected: np.ndarray) -> None:
        unit = max(1.0, float(np.abs(expected).max())) if self.relative else 1.0
        difference = float(np.abs(found - expected).max()) / unit
        if not difference <= self.difference:  # NaN counts as worst
            self.difference = difference if difference == difference else float("inf")
            self.place = point
        least, mean = least_cosine(found, expected)
        self.least = min(self.least, least)
        self.cosines, self.rows = self.cosines + mean * len(found), self.rows + len(found)

    def row(self, tower: str, points: int, together: np.ndarray, alone: np.ndarray) -> Row:
        precision = self.chosen.precision
        return Row(
            tower=tower,
            engine=self.chosen.engine,
            precision=precision,
            file=self.chosen.graph.file,
            points=points,
            difference=self.difference,
            batch=self.place[0],
            length=self.place[1],
            least_cosine=self.least,
            mean_cosine=self.cosines / max(1, self.rows),
            cobatch_difference=float(np.abs(together - alone).max()),
            cobatch_cosine=max(0.0, 1 - least_cosine(together, alone)[0]),
            passed=self.difference <= TOLERANCE if precision == "float32" else None,
        )


def _compare(
    modality: str,
    entry: TowerEntry,
    points: Sequence[Point],
    reference: Reference,
    probe: Probe,
    sessions: Iterable[tuple[Chosen, Session]],
) -> list[Row]:
    tallies = [_Tally(chosen, one, entry.output == "logits") for chosen, one in sessions]
    lengths: dict[int | None, list[int]] = {}
    for batch, length in points:
        lengths.setdefault(length, []).append(batch)
    with progress.bar(f"Parity, {modality} tower", len(points)) as bar:
        for length, batches in lengths.items():
            tensors = probe.tensors(entry.inputs, max(batches), length)
            expected = reference(tensors)
            for batch in batches:
                part = {name: array[:batch] for name, array in tensors.items()}
                for tally in tallies:
                    found = tally.session.run(part)
                    tally.compare((batch, length), found, expected[:batch])
                bar.advance()
    together = probe.tensors(entry.inputs, max(BATCHES), probe.longest)
    singles = [probe.alone(together, row) for row in range(max(BATCHES))]
    return [
        tally.row(
            modality,
            len(points),
            tally.session.run(together),
            np.concatenate([tally.session.run(single) for single in singles]),
        )
        for tally in tallies
    ]


def check_parity(report: Mapping[str, Any]) -> None:
    """Raises PlaitError when a float32 graph is further from torch than `TOLERANCE`."""
    for row in report["rows"]:
        if row["passed"] is False:
            place = f"batch {row['batch']}"
            place += f", length {row['length']}" if row["length"] is not None else ""
            raise PlaitError(
                f"the {row['tower']} graph in {row['engine']} float32 differs from torch by "
                f"{row['difference']:.2g} ({place}); {TOLERANCE:g} is allowed, and nothing was "
                "written"
            )


def write_parity(folder: Path, report: Mapping[str, Any]) -> Manifest:
    """Writes the report into a bundle, as JSON and as a page, and seals the manifest anew."""
    write_json(folder / PARITY_JSON, report)
    write_text(folder / PARITY_MD, parity_page(report))
    return write_manifest(folder, read_manifest(folder))


def parity_page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    batches = ", ".join(map(str, report["batches"]))
    used = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        f"# Parity of {report['name']}",
        "",
        f"Every graph against {report['against']}: batches of {batches}; texts of 1 to "
        f"{report['lengths']} tokens; {report['extent']} grid.",
        "",
        "| tower | engine | precision | points | largest difference | at batch | at length "
        "| least cosine | alone or among 31: difference | 1 - cosine |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        length = "" if row["length"] is None else row["length"]
        lines.append(
            f"| {row['tower']} | {row['engine']} | {row['precision']} | {row['points']} "
            f"| {row['difference']:.2e} | {row['batch']} | {length} | {row['least_cosine']:.6f} "
            f"| {row['cobatch_difference']:.2e} | {row['cobatch_cosine']:.2e} |"
        )
    lines += [
        "",
        f"float32 graphs must stay within {report['tolerance']:g} at every point. Of logits the "
        "difference is a share of the largest.",
        "",
        f"Measured with {used}.",
        "",
    ]
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Of what was compared, where it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("plait", "torch", "onnx", "onnxruntime", "openvino", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version(), "machine": platform.machine()}
