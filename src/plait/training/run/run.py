"""One run from recipe to run folder: data, features of frozen towers, stages, test, report.

train(load_recipe("align", data="pairs/"), out=Path("runs/mine"))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait.core.batch import Batch
from plait.core.clock import Clock
from plait.core.errors import DataError, Interrupted, MachineError, PlaitError
from plait.core.files import read_json, write_json
from plait.core.modality import TEXT
from plait.core.processes import join_processes
from plait.core.trouble import explained
from plait.data import open_dataset
from plait.data.base.dataset import PairDataset
from plait.data.base.equal_texts import EqualTexts
from plait.evaluation.report.caution import with_cautions
from plait.evaluation.report.report import write_report
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.alignment.alignment import AlignmentModel
from plait.models.bridged.model import BridgedModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.fusion.model import FusionModel
from plait.models.store.kinds import Model
from plait.models.store.storage import save_model
from plait.training.batches.checked import only_languages, require_usable, usable
from plait.training.build.start import require_start
from plait.training.loop.health import Finding, examine
from plait.training.recipe.schema import Recipe
from plait.training.run import finetuning
from plait.training.run.hubs import hub_correction
from plait.training.run.report import write_markdown
from plait.training.run.run_folder import REPORT, Resume, RunFolder
from plait.training.run.savings import savings
from plait.training.run.stages import StageRunner
from plait.training.run.trackers import checked_trackers

WORTH_CONVERTING = 500  # samples
SCRIPT_TEXTS = 20_000  # about so many texts tell in which scripts all are

Evaluate = Callable[[Model, PairDataset], Mapping[str, Any]]


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        run: its folder.
        split: of the figures.
        metrics: what ``evaluate`` gave for that split, or empty.
        seconds: of each step of the way.
        skipped: bad rows that were left out.
        health: alarms of training.
        notes: what else to know.
        savings: of layers or tasks that share one network (`plait.training.run.savings`), or empty.
        finetuning: of a published model that was trained on: ``before``, the figures of that split at
            the start, and ``wise_ft`` (`plait.training.run.finetuning.wise_ft`); or empty.
        made: what ``report.json`` says, of a run that was finished before; then all else is empty.
        is_main: False in the helper processes of a distributed run.
    """

    run: Path
    split: str | None
    metrics: Mapping[str, Any]
    seconds: Mapping[str, float]
    skipped: int = 0
    health: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    savings: Mapping[str, Any] = field(default_factory=dict)
    finetuning: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    is_main: bool = True

    def to_json(self) -> dict[str, Any]:
        """For ``report.json`` and the command line."""
        if self.made:
            return dict(self.made)
        return {
            "run": str(self.run),
            "split": self.split,
            **with_cautions(self.metrics),
            **self.finetuning,
            **({"savings": dict(self.savings)} if self.savings else {}),
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "skipped": self.skipped,
            "health": [finding.line() for finding in self.health],
            "notes": list(self.notes),
        }


def train(
    recipe: Recipe,
    *,
    data: str | Path | None = None,
    out: str | Path,
    resume: Resume = False,
    evaluate: Evaluate | None = None,
    accelerator: Any = None,
    log: Sequence[str] = (),
) -> RunResult:
    """Trains a recipe into a run folder.

    Args:
        recipe: see `plait.training.recipe.recipe.load_recipe`.
        data: replaces the data of the recipe.
        out: the run folder.
        resume: go on with the run in ``out``; "auto": begin it where nothing is yet, and give the
            result of a finished one.
        evaluate: (model, data set) to metrics of the test split; None for
            `plait.evaluation.evaluate_alignment` or `plait.evaluation.evaluate.fusion`, by the
            model's kind.
        accelerator: of ``accelerate``; None joins the processes that were started together.
        log: ``wandb``, ``mlflow``: where the curves go besides the run folder.

    Raises:
        UserError: anything wrong with recipe, data, folder or weights.
        Interrupted: stopped by the user; ``resume`` goes on.
    """
    accelerator = accelerator or join_processes()
    if data is not None:
        recipe = recipe.model_copy(
            update={"data": recipe.data.model_copy(update={"source": str(data)})}
        )
    require_start(recipe)
    clock, folder = Clock(), RunFolder(Path(out), checked_trackers(log))
    start = time.perf_counter()
    dataset = _open(recipe)
    described = describe(dataset, recipe)
    clock.measure("data", start)
    try:
        with closing(folder):
            if not _begin(folder, recipe, described, resume=resume, accelerator=accelerator):
                made = read_result(folder.path) | {"run": str(folder.path)}
                main = accelerator.is_main_process
                return RunResult(folder.path, made["split"], {}, {}, made=made, is_main=main)
            runner = StageRunner(recipe, dataset, folder, clock, accelerator)
            changed = _before(runner, dataset, evaluate)
            runner.run()
            if not accelerator.is_main_process:
                return RunResult(folder.path, None, {}, clock.seconds, is_main=False)
            return _conclude(runner, dataset, evaluate, changed)
    except (Interrupted, KeyboardInterrupt) as stop:
        told = f"{stop}; everything is saved" if str(stop) else "stopped"
        raise Interrupted(f"{told}: go on with {_going_on(folder)}") from None
    except Exception as error:
        trouble = explained(error)
        if not isinstance(trouble, MachineError):
            raise
        raise MachineError(f"{trouble}; then go on with {_going_on(folder)}") from error


def _going_on(folder: RunFolder) -> str:
    return f"--out {folder.path} --resume auto"


def opened(recipe: Recipe) -> PairDataset:
    """The samples that a recipe names, none of their pictures looked at.

    Raises:
        DataError: the recipe names no data, or there is a fault in them.
    """
    if recipe.data.source is None:
        raise DataError(f"the recipe {recipe.name!r} names no data: give --data PATH")
    dataset = open_dataset(
        recipe.data.source,
        columns=recipe.data.columns,
        on_bad_row=recipe.data.on_bad_row,
        root=recipe.data.root,
        allow_outside=recipe.data.allow_outside,
        encoding=recipe.data.encoding,
    )
    if recipe.data.languages is not None:
        dataset = only_languages(dataset, recipe.data.languages)
    return dataset


def _open(recipe: Recipe) -> PairDataset:
    dataset = opened(recipe)
    if recipe.data.on_bad_row == "skip":
        return usable(dataset)
    if recipe.evaluation.test is not None:  # else a broken picture there would show at the very end
        require_usable(dataset.split(recipe.evaluation.test))
    return dataset


def describe(dataset: PairDataset, recipe: Recipe) -> dict[str, Any]:
    """What ``data.json`` says of the data."""
    source = str(recipe.data.source)
    return {
        "source": str(Path(source).resolve()) if Path(source).exists() else source,
        "format": dataset.format,
        "samples": len(dataset),
        "texts": dataset.texts,
        "splits": dict(dataset.split_counts),
        "skipped": [{"where": row.where, "problem": row.problem} for row in dataset.skipped],
        "fingerprint": dataset.fingerprint,
    }


def _begin(
    folder: RunFolder, recipe: Recipe, data: Mapping[str, Any], *, resume: Resume, accelerator: Any
) -> bool:
    """Lets the main process begin, and tells the others how that went; False: it is finished."""
    problem: PlaitError | None = None
    to_do = True
    if accelerator.is_main_process:
        try:
            to_do = folder.begin(recipe, data, resume=resume)
        except PlaitError as error:
            problem = error
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        problem, to_do = broadcast_object_list([problem, to_do])
    if problem is not None:
        raise problem
    return to_do


def _conclude(
    runner: StageRunner,
    dataset: PairDataset,
    evaluate: Evaluate | None,
    changed: dict[str, Any],
) -> RunResult:
    """Measures the trained model on the test split, and writes model and reports.

    The status is written last, so that a run that is killed before goes on from its checkpoint.
    """
    recipe, folder, clock = runner.recipe, runner.folder, runner.clock
    _mix(runner, dataset, changed)
    _correct(runner, dataset)
    _note_scripts(runner)
    save_model(runner.model, folder.path)  # first: whatever the test finds, nothing is lost
    split = recipe.evaluation.test
    part = None if split is None else dataset.split(split)
    if part is not None and not len(part):
        runner.notes.append(f"The {split} split is empty: there are no figures.")
        part = None
    embedding = {} if part is None else _embedding(recipe, len(part))
    start, metrics, equal = time.perf_counter(), dict[str, Any](), recipe.data.equal_texts
    if part is not None:
        metrics.update(_measured(runner.model, part, evaluate, equal, embedding))
    clock.measure("evaluate", start)
    saved = _savings(runner)
    result = RunResult(
        folder.path,
        None if part is None else split,
        metrics,
        clock.seconds,
        skipped=len(dataset.skipped),
        health=examine(list(folder.records())),
        notes=[*runner.notes, *dataset.notes],
        savings=saved,
        finetuning=changed,
    )
    write_json(folder.path / REPORT, result.to_json())
    write_markdown(folder.path, recipe, result.to_json(), result.health)
    model = runner.model if isinstance(runner.model, AlignmentModel) else None
    write_report(
        folder.path,
        model=model,
        dataset=part,
        seed=recipe.seed,
        equal_texts=equal,
        **embedding,
    )
    folder.set_status("finished")
    return result


def _note_scripts(runner: StageRunner) -> None:
    """Tells the text tower in which scripts its training texts were, so that search can say so."""
    model, texts = runner.model, runner.data.training.texts
    if isinstance(model, AlignmentModel | FusionModel) and TEXT in model.modalities:
        preprocess = model.tower(TEXT).encoder.preprocess
        assert isinstance(preprocess, TextPreprocess)
        preprocess.note_scripts(texts[:: max(1, len(texts) // SCRIPT_TEXTS)])


def _measured(
    model: Model,
    part: PairDataset,
    evaluate: Evaluate | None,
    equal: EqualTexts,
    embedding: Mapping[str, Any],
) -> Mapping[str, Any]:
    """The figures of a model on a split, by its kind."""
    if evaluate is not None:
        return evaluate(model, part)
    if isinstance(model, AlignmentModel):
        from plait.evaluation import evaluate_alignment

        return evaluate_alignment(model, part, equal_texts=equal, **embedding)
    if isinstance(model, BridgedModel):
        from plait.evaluation.evaluate.bridged import evaluate_bridged

        return evaluate_bridged(model, part)
    if isinstance(model, DrawingModel):
        from plait.evaluation.evaluate.drawing import evaluate_drawing

        return evaluate_drawing(model, part)
    from plait.evaluation.evaluate.fusion import evaluate_fusion

    return evaluate_fusion(model, part, equal_texts=equal)


def _before(runner: StageRunner, dataset: PairDataset, evaluate: Evaluate | None) -> dict[str, Any]:
    """The figures of a published model on the test split before the first update, as ``before``."""
    recipe, model, split = runner.recipe, runner.model, runner.recipe.evaluation.test
    part = None if split is None else dataset.split(split)
    if recipe.model.published is None or not runner.main or part is None or not len(part):
        return {}
    assert isinstance(model, AlignmentModel)
    start = time.perf_counter()
    equal = recipe.data.equal_texts
    of = {"weights": runner.saver.started_from, "data": dataset.fingerprint, "split": split}
    of["equal_texts"] = equal
    figures = finetuning.figures_before(
        model,
        lambda model: _measured(model, part, evaluate, equal, finetuning.ENGINE),
        runner.folder.path,
        of,
    )
    runner.clock.measure("evaluate", start)
    return {"before": figures}


def _mix(runner: StageRunner, dataset: PairDataset, changed: dict[str, Any]) -> None:
    """Gives a fine-tuned model the best mixture with its start, where the recipe wants one."""
    recipe, model, start = runner.recipe, runner.model, time.perf_counter()
    if recipe.model.wise_ft is None or not isinstance(model, AlignmentModel):
        return
    part = dataset.split(recipe.evaluation.split)
    if not len(part):
        runner.notes.append(
            "Without a validation split the fine-tuned weights are kept as they are."
        )
        return
    changed["wise_ft"] = finetuning.wise_ft(model, recipe, part)
    runner.clock.measure("wise-ft", start)


def _correct(runner: StageRunner, dataset: PairDataset) -> None:
    """Gives the trained model its correction for hubs, where the recipe wants one."""
    recipe, model, start = runner.recipe, runner.model, time.perf_counter()
    if recipe.model.hubs is None or not isinstance(model, AlignmentModel):
        return
    part = dataset.split("train")
    embedding = _embedding(recipe, len(part))
    model.hubs = hub_correction(model, part, recipe.model.hubs, seed=recipe.seed, **embedding)
    runner.clock.measure("hubs", start)


def _savings(runner: StageRunner) -> dict[str, Any]:
    """What towers or tasks save that share one network, on the last stage's first batch."""
    start, last = time.perf_counter(), len(runner.recipe.stages) - 1

    def batch() -> Batch:
        return runner.data.supply(runner.model, last).batch(0, 0)

    found = savings(runner.model, runner.recipe, batch, runner.accelerator)
    if found:
        runner.clock.measure("savings", start)
    return found


def _embedding(recipe: Recipe, samples: int) -> dict[str, Any]:
    """By which engines the test, or a correction for hubs, embeds.

    A tower that stayed frozen goes through the engine that its features for training came from. One
    that trained is new to every engine: for few samples the conversion takes longer than torch.
    """
    if recipe.model.published is not None:
        return finetuning.ENGINE
    engines = {
        name: "auto"
        if samples >= WORTH_CONVERTING
        or all(stage.part(f"{name}.encoder").mode == "frozen" for stage in recipe.stages)
        else "torch"
        for name in recipe.model.towers
    }
    return {"engine": engines}


def read_result(run: str | Path) -> dict[str, Any]:
    """The figures of a finished run."""
    found: dict[str, Any] = read_json(Path(run) / REPORT)
    return found
