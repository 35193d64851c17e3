"""A run to a smaller artefact: candidates, int8, choice within tolerance, report."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plait.compression.bundles import with_int8_graphs
from plait.compression.calibration import (
    Judged,
    Split,
    SplitRows,
    calibration_inputs,
    judge,
    loss_between,
)
from plait.compression.candidates import FloatCandidate, float_candidates, told
from plait.compression.quantiser import Quantiser
from plait.compression.report import write_report
from plait.compression.search import Candidate, Int8Search
from plait.compression.settings import Settings
from plait.compression.sides import (
    bundle_drift,
    dataset_of,
    pictured,
    preprocesses,
    ratios,
    side,
    timing_inputs,
)
from plait.compression.timing import measure, open_runner, torch_runner
from plait.core.errors import ModelError
from plait.core.files import check_free, new_folder
from plait.core.modality import IMAGE, TEXT
from plait.data.base.dataset import PairDataset
from plait.engines.tower import least_cosine
from plait.evaluation.report.caution import cautions
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.runtime.choose import cores
from plait.runtime.manifest import read_manifest, write_manifest
from plait.runtime.sessions import Session
from plait.training.recipe.schema import Recipe

Export = Callable[[AlignmentModel, Path], None]
Tell = Callable[[str], None]
PROBES = 24  # rows that the harm of a group of layers is measured on


def compress(
    run: Path,
    model: AlignmentModel,
    out: Path,
    settings: Settings,
    *,
    recipe: Recipe | None,
    data: str | None,
    export: Export,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Makes the smallest artefact within tolerance, and its report.

    Args:
        run: folder of the run, or of a published checkpoint.
        model: what it holds.
        out: a bundle when the result is int8, else a run folder.
        settings: what is asked for.
        recipe: of the run, if it has one.
        data: pairs in place of those it was trained on.
        export: writes a float bundle of a model into a folder that does not exist.
        tell: is told what is being done.

    Returns:
        The report, as in ``compression.json``.

    Raises:
        UserError: settings that cannot be, or ``out`` holds something.
        DataError: splits that lack what is needed.
        ModelError: no candidate is within tolerance, or a model that cannot be compressed.
    """
    settings.check()
    check_free(out)  # before the work
    _check_model(model)
    job = _Job(run, model, settings, recipe, data, export, tell)
    with new_folder(out) as target, tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as name:
        floating, quantised = job.choose(Path(name))
        if quantised is None:
            shutil.copytree(floating.folder, target, dirs_exist_ok=True)
        else:
            with_int8_graphs(floating.bundle, target, quantised.made)
        report = job.report(target, floating, quantised)
        write_report(target, report)
        if quantised is not None:
            write_manifest(target, read_manifest(target))
    return {**report, "out": str(out)}


@dataclass(frozen=True)
class _Float:
    """A float candidate that was made and judged."""

    candidate: FloatCandidate
    model: AlignmentModel
    folder: Path
    bundle: Path
    validation: Judged


class _Job:
    """The inputs and judgements that all candidates share."""

    def __init__(
        self,
        run: Path,
        model: AlignmentModel,
        settings: Settings,
        recipe: Recipe | None,
        data: str | None,
        export: Export,
        tell: Tell,
    ) -> None:
        self.run, self.model, self.settings = run, model, settings
        self.recipe, self.data, self.export, self.tell = recipe, data, export, tell
        dataset = dataset_of(
            recipe,
            data,
            root=settings.root,
            allow_outside=settings.allow_outside,
            encoding=settings.encoding,
        )
        self.training = pictured(dataset, "train")
        self.validation, self.test = pictured(dataset, "validation"), pictured(dataset, "test")
        self.samples = self._calibration(model)
        self.tried: list[dict[str, Any]] = []
        self.harm: dict[str, list[float]] = {}
        tell(f"judging {run} on {len(self.validation)} validation pictures")
        self.before = judge(self._split(model, self.validation).embed(torch_runner(model)))

    def choose(self, work: Path) -> tuple[_Float, Candidate | None]:
        """The first candidate within tolerance, the smallest first."""
        settings = self.settings
        candidates = float_candidates(
            self.run, self.model, self.recipe, settings, self.samples, self.data, work, self.tell
        )
        for number, candidate in enumerate(candidates):
            model, folder = candidate.make()
            same = model is self.model
            if same and settings.int8 == "none":
                continue
            split = self._split(model, self.validation)
            found = self.before if same else judge(split.embed(torch_runner(model)))
            lost = self.before.recall - found.recall
            self.tell(f"{candidate.name}: recall@1 {found.recall:.2f}, {lost:+.2f} points lost")
            entry = told(
                candidate, validation_recall=round(found.recall, 3), validation_lost=round(lost, 3)
            )
            self.tried.append(entry)
            if lost > settings.max_recall_drop:
                continue
            made = _Float(candidate, model, folder, work / f"bundle{number}", found)
            if settings.int8 == "none":
                return made, None
            chosen = self._int8(made, split, work / f"int8-{number}", entry)
            if chosen is not None:
                return made, chosen
        best = min(one["validation_lost"] for one in self.tried) if self.tried else float("nan")
        raise ModelError(
            f"no candidate loses at most {settings.max_recall_drop:g} points of recall@1 on the "
            f"validation split; the best loses {best:.2f}: raise --max-recall-drop, prune less, "
            "heal longer (--heal-steps), or take a larger student"
        )

    def _int8(
        self, made: _Float, split: Split, work: Path, entry: dict[str, Any]
    ) -> Candidate | None:
        """The int8 graphs of a float candidate that are within tolerance."""
        settings = self.settings
        work.mkdir()
        self.tell("exporting")
        self.export(made.model, made.bundle)
        manifest = read_manifest(made.bundle)
        samples = self.samples if made.model is self.model else self._calibration(made.model)
        graphs = {
            name: made.bundle / tower.graphs[0].file for name, tower in manifest.towers.items()
        }
        threads = settings.threads or cores()
        apart = {name: _probes(rows) for name, rows in samples.items()}
        made_of = {
            name: _quantiser(
                settings.method(),
                made.model.tower(name),
                graph,
                samples[name][: -apart[name]],  # the others measure the harm
                work,
            )
            for name, graph in graphs.items()
        }
        search = Int8Search(
            made_of,
            {name: one.reference(threads) for name, one in made_of.items()},
            {name: samples[name][-apart[name] :] for name in graphs},
            lambda sessions: _recall(sessions, split),
            self.before.recall,
            settings.max_recall_drop,
            threads,
            self.tell,
        )
        chosen = search.run()
        counts = {name: len(one.groups) for name, one in search.quantisers.items()}
        entry["int8"] = [candidate.to_json(counts) for candidate in search.tried]
        entry["harm"] = {n: [round(h, 6) for h in harm] for n, harm in search.harm.items()}
        return chosen

    def report(self, target: Path, chosen: _Float, int8: Candidate | None) -> dict[str, Any]:
        """Both sides on the test split, timed each in a process of its own."""
        self.tell(f"measuring both sides on {len(self.test)} test pictures")
        threads = self.settings.threads or cores()
        first = {name: rows[0] for name, rows in self.samples.items()}
        rows_before = self._split(self.model, self.test).embed(torch_runner(self.model))
        before = judge(rows_before)
        after_run = open_runner(target, threads) if int8 else torch_runner(chosen.model)
        after_split = self._split(chosen.model, self.test)
        rows_after = after_split.embed(after_run)
        after = judge(rows_after)
        sides = {
            "before": side(self.run, self.model, before, first),
            "after": side(target, chosen.model, after, first),
        }
        for name, path, model in (
            ("before", self.run, self.model),
            ("after", target, chosen.model),
        ):
            inputs = timing_inputs(self.test, self._split(model, self.test))
            sides[name] |= measure(path, inputs, threads=threads)
        found: dict[str, Any] = {
            "run": self.run.resolve().name,  # where it lay is nobody's business
            "candidate": chosen.candidate.name,
            "int8": self.settings.method() if int8 else "none",
            "threads": threads,
            "max_recall_drop": self.settings.max_recall_drop,
            "calibration_samples": len(self.samples[IMAGE]) - _probes(self.samples[IMAGE]),
            **sides,
            "lost": loss_between(before, after, seed=self.settings.seed),
            "cosine": _cosines(rows_before, rows_after),
            "ratios": ratios(sides["before"], sides["after"]),
            "tried": self.tried,
            "cautions": list(cautions({"retrieval": after.figures})),
        }
        if int8 is not None:
            found["drift"] = bundle_drift(target, threads, timing_inputs(self.test, after_split))
        return found

    def _split(self, model: AlignmentModel, part: PairDataset) -> Split:
        equal = "same" if self.recipe is None else self.recipe.data.equal_texts
        return Split(part, preprocesses(model), model.hubs, equal)

    def _calibration(self, model: AlignmentModel) -> dict[str, list[dict[str, np.ndarray]]]:
        """The samples of `Settings`, and `PROBES` more that quantisers never see."""
        return calibration_inputs(
            self.training,
            preprocesses(model),
            samples=self.settings.samples + PROBES,
            seed=self.settings.seed,
        )


def _recall(sessions: Mapping[str, Session], split: Split) -> float:
    rows = split.embed(lambda modality, tensors: sessions[modality].run(tensors))
    return judge(rows, bootstrap=0).recall


def _cosines(before: SplitRows, after: SplitRows) -> dict[str, dict[str, float]]:
    """By modality the least and the mean cosine of the same input's rows; {} in another space."""
    if before.image.shape != after.image.shape:
        return {}
    pairs = {IMAGE: (before.image, after.image), TEXT: (before.text, after.text)}
    found = {name: least_cosine(*pair) for name, pair in pairs.items()}
    return {name: {"least": least, "mean": mean} for name, (least, mean) in found.items()}


def _probes(rows: Sequence[Any]) -> int:
    """How many of the samples calibration leaves to measure the harm on."""
    return max(1, min(PROBES, len(rows) // 4))


def _check_model(model: AlignmentModel) -> None:
    if set(model.modalities) != {IMAGE, TEXT}:
        named = " and ".join(model.modalities)
        raise ModelError(f"compress judges retrieval between pictures and texts, not of {named}")


def _quantiser(
    method: str,
    tower: Tower,
    graph: Path,
    rows: Sequence[Mapping[str, np.ndarray]],
    work: Path,
) -> Quantiser:
    """Of a tower and its exported graph, calibrated on ``rows``."""
    if method == "nncf":
        from plait.compression.nncf_int8 import NncfQuantiser
        from plait.compression.openvino_model import float_model

        return NncfQuantiser(float_model(tower, rows, graph), rows, work)
    from plait.compression.onnx_int8 import OnnxQuantiser

    return OnnxQuantiser(graph, rows, work)
