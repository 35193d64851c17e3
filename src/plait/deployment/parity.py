"""Exported graphs against the model in torch: every engine and precision, batch by length.

What is compared: a grid of batch sizes and text lengths, each text with padding of its own, and
each row alone, without padding, against the same row among 31 others.

Shape legend: B samples, N tokens, E features of the shared space or answers.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
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
        inputs = _Inputs(entry, probe, points)
        expected = inputs.through(references[modality], f"{modality} in torch")
        for one in runnable(entry.graphs):  # one after the other: each holds the weights again
            file = folder / one.graph.file
            session = open_session(file, one.engine, one.precision, threads=threads)
            rows.append(_compare(modality, inputs, expected, one, session))
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


class _Inputs:
    """What is compared: at each length the most rows that any of its batches has."""

    def __init__(self, entry: TowerEntry, probe: Probe, points: Sequence[Point]) -> None:
        self.entry, self.probe, self.points = entry, probe, points
        self.batches: dict[int | None, list[int]] = {}
        for batch, length in points:
            self.batches.setdefault(length, []).append(batch)

    def at(self, length: int | None) -> dict[str, np.ndarray]:
        return self.probe.tensors(self.entry.inputs, max(self.batches[length]), length)

    def through(self, run: Reference, title: str) -> dict[int | None, np.ndarray]:
        """The rows of every length."""
        return {
            length: run(self.at(length))
            for length in progress.track(list(self.batches), f"Parity, {title}")
        }


class _Tally:
    """Differences, gathered over the points."""

    def __init__(self, relative: bool) -> None:
        self.relative = relative
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


def _compare(
    modality: str,
    inputs: _Inputs,
    expected: Mapping[int | None, np.ndarray],
    chosen: Chosen,
    session: Session,
) -> Row:
    tally = _Tally(inputs.entry.output == "logits")
    title = f"Parity, {modality} in {chosen.engine} {chosen.precision}"
    for length in progress.track(list(inputs.batches), title):
        tensors = inputs.at(length)
        for batch in inputs.batches[length]:
            found = session.run({name: array[:batch] for name, array in tensors.items()})
            tally.compare((batch, length), found, expected[length][:batch])
    together = inputs.probe.tensors(inputs.entry.inputs, max(BATCHES), inputs.probe.longest)
    among = session.run(together)
    singles = [inputs.probe.alone(together, row) for row in range(max(BATCHES))]
    alone = np.concatenate([session.run(single) for single in singles])
    exact = chosen.precision == "float32"
    return Row(
        tower=modality,
        engine=chosen.engine,
        precision=chosen.precision,
        file=chosen.graph.file,
        points=len(inputs.points),
        difference=tally.difference,
        batch=tally.place[0],
        length=tally.place[1],
        least_cosine=tally.least,
        mean_cosine=tally.cosines / max(1, tally.rows),
        cobatch_difference=float(np.abs(among - alone).max()),
        cobatch_cosine=max(0.0, 1 - least_cosine(among, alone)[0]),
        passed=tally.difference <= TOLERANCE if exact else None,
    )


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
