"""Training, and judging what was trained."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.api.sources import (
    Roots,
    Source,
    checked_equal_texts,
    checked_policy,
    data_of,
    data_overrides,
    load,
    open_split,
)
from plait.core.errors import UserError
from plait.core.notebook import reported

if TYPE_CHECKING:
    from plait.training.run.run_folder import Resume


def tune_process() -> None:
    """Applies the allocator settings that only a command may choose (see `plait doctor`)."""
    from plait.core.allocator import ensure_tuned

    held = {signal.SIGINT, signal.SIGTERM}
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where no process starts over
        return
    # While a process starts over, Ctrl-C would end in a traceback of Python's own start: it waits
    # for the new one, which lets it through here, or earlier in `plait.cli.main`.
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        ensure_tuned()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)


@reported
def train(
    recipe: Source,
    *,
    data: Source | None = None,
    model: Source | None = None,
    out: Source | None = None,
    overrides: Sequence[str] = (),
    resume: Resume = False,
    log: Sequence[str] = (),
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
) -> dict[str, Any] | None:
    """Trains a recipe (a file, or a built-in name) and evaluates the result on the test split.

    Args:
        recipe: a YAML file or a name of `plait recipes`.
        data: replaces the data of the recipe: a path of pairs or a catalogue name.
        model: replaces the published model that the recipe trains on: a folder, OWNER/NAME on the
            model hub, or a run.
        out: the run folder; ``runs/NAME-TIME`` when None.
        overrides: ``"stages.0.epochs=20"`` and the like.
        resume: go on with the run in ``out``; "auto": begin it where nothing is yet, and give the
            result of a finished one, so that the same call can always be made again.
        log: ``wandb`` or ``mlflow``, where the curves go too; ``tensorboard`` is in the run folder.
        root: a folder, or several, below which the files that rows name may lie besides the folder
            of the data (``data.root`` of the recipe).
        allow_outside: they may lie anywhere.
        encoding: of text files that are not UTF-8, such as ``gbk`` (``data.encoding``).

    Returns:
        ``run``, ``split``, ``retrieval``, ``seconds`` by step, ``skipped`` rows, ``health`` lines, of
        a published model ``before`` and ``wise_ft``; None in a helper process of a distributed run.
    """
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train as run_training

    if resume and out is None:
        raise UserError("--resume needs --out RUN: which run shall go on?")
    overrides = [*overrides, *data_overrides(root, allow_outside, encoding)]
    data, model = (None if value is None else str(value) for value in (data, model))
    loaded = load_recipe(str(recipe), overrides, data=data, model=model)
    folder = Path(out) if out is not None else _new_run_folder(loaded.name)
    result = run_training(loaded, out=folder, resume=resume, log=log)
    return result.to_json() if result.is_main else None


@reported
def compare(
    recipe: Source,
    over: str,
    *,
    data: Source | None = None,
    out: Source | None = None,
    overrides: Sequence[str] = (),
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any] | None:
    """Trains a recipe once for each value of a key and compares the runs.

    Args:
        recipe: a YAML file or a name of `plait recipes`.
        over: ``"model.fusion=concat,late,gated"``.
        data: replaces the data of the recipe.
        out: folder of the runs and of the table; finished runs in it are reused.
        overrides: for all runs.
        root: as of `train`.
        allow_outside: as of `train`.
        encoding: as of `train`.
        tell: is told which run begins.

    Returns:
        ``out``, and ``rows``: ``value``, ``measure``, ``quality`` with ``low`` and ``high``,
        ``parameters``, ``seconds``, ``step_ms``, ``latency_ms``, ``run``; None in a helper
        process of a distributed run.
    """
    from dataclasses import asdict

    from plait.training.studies.compare import compare as run_comparison

    name = Path(recipe).stem
    folder = Path(out) if out is not None else _new_run_folder(f"compare-{name}")
    rows = run_comparison(
        recipe,
        over,
        out=folder,
        data=None if data is None else str(data),
        overrides=[*overrides, *data_overrides(root, allow_outside, encoding)],
        tell=tell,
    )
    if not rows:
        return None
    return {"out": str(folder), "rows": [asdict(row) for row in rows]}


def _new_run_folder(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


@reported
def evaluate(
    run: Source,
    *,
    data: Source | None = None,
    split: str = "test",
    on_bad_row: str = "fail",
    shots: int = 0,
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
    equal_texts: str | None = None,
) -> dict[str, Any]:
    """Metrics of a run on a split of ``data`` (default: the data it was trained on), in percent.

    ``shots`` examples of the training split stand before each prompt of a language model. Texts that
    read the same are one under ``equal_texts="same"``, each its own picture's alone under
    ``"apart"``; None: as the run was trained.
    """
    from plait.evaluation import evaluate_alignment
    from plait.evaluation.evaluate.bridged import evaluate_bridged
    from plait.evaluation.evaluate.drawing import evaluate_drawing
    from plait.evaluation.evaluate.fusion import evaluate_fusion
    from plait.evaluation.report.caution import with_cautions
    from plait.models.bridged.model import BridgedModel
    from plait.models.drawing.drawing import DrawingModel
    from plait.models.fusion.model import FusionModel
    from plait.training.batches.checked import usable

    columns = None
    if data is None:
        trained = data_of(run)
        data, columns = str(trained.source), trained.columns
        root, allow_outside = root or trained.root, allow_outside or trained.allow_outside
        encoding = encoding or trained.encoding
    equal = checked_equal_texts(run, equal_texts)
    leave: dict[str, Any] = {
        "root": root,
        "allow_outside": allow_outside,
        "encoding": encoding,
    }
    dataset = open_split(data, split, on_bad_row, columns, **leave)
    model = load(run)
    if isinstance(model, BridgedModel):
        support = open_split(data, "train", on_bad_row, columns, **leave) if shots else None
        judged = usable(dataset) if on_bad_row == "skip" else dataset
        metrics = evaluate_bridged(model, judged, shots=shots, support=support)
    elif shots:
        raise UserError("examples before a prompt (--shots) are for language models that see")
    elif isinstance(model, FusionModel):
        judged = usable(dataset) if on_bad_row == "skip" else dataset
        metrics = evaluate_fusion(model, judged, equal_texts=equal)
    elif isinstance(model, DrawingModel):
        metrics = evaluate_drawing(model, usable(dataset) if on_bad_row == "skip" else dataset)
    else:
        policy = checked_policy(on_bad_row)
        metrics = evaluate_alignment(model, dataset, equal_texts=equal, on_bad_row=policy)
    return {"run": str(run), "split": split, **with_cautions(metrics)}
