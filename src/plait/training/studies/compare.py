"""The same recipe with one thing exchanged: a run each, one table and one chart.

compare("vqa", "model.fusion=concat,late,gated", out=Path("runs/fusion"))
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from plait.core.batch import Batch
from plait.core.errors import DataError, RecipeError
from plait.core.files import replacing, write_json, write_text
from plait.core.modality import TEXT
from plait.core.processes import join_processes
from plait.data.base.dataset import PairDataset
from plait.data.base.notes import with_notes
from plait.evaluation.report.compare_chart import draw_comparison
from plait.models.alignment.alignment import AlignmentModel
from plait.models.base.embedding import answering
from plait.models.bridged.model import BridgedModel
from plait.models.fusion.model import FusionModel
from plait.models.store.kinds import Model
from plait.models.store.storage import load_model
from plait.training.batches.material import Material, material_of, sources_of
from plait.training.batches.rows import InOrder
from plait.training.build.build import build_model
from plait.training.recipe.recipe import load_recipe, read_run_recipe
from plait.training.recipe.schema import Recipe
from plait.training.run.run import opened, read_result, train
from plait.training.run.run_folder import RunFolder, flat
from plait.training.tasks.wording import Wording
from plait.training.tasks.writing import ExampleSource

CALLS = 30  # single answers that latency is the median of
MEASURED = {"answer", "classify", "match", "wra"}  # objectives of fusion that a test split judges


@dataclass(frozen=True)
class Row:
    """One of the things compared.

    Attributes:
        value: what was exchanged.
        run: its folder.
        measure: what ``quality`` is.
        quality, low, high: on the test split, with its 95% interval where it has one.
        parameters: of the whole model.
        seconds: of training.
        step_ms: of one update, mean.
        latency_ms: of one answer or embedding alone, median; reading the picture is not in it.
        updates: how many.
    """

    value: str
    run: str
    measure: str
    quality: float
    low: float | None
    high: float | None
    parameters: int
    seconds: float
    step_ms: float
    latency_ms: float
    updates: int


def compare(
    recipe: str | Path,
    over: str,
    *,
    out: Path,
    data: str | None = None,
    overrides: Sequence[str] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Trains a recipe once for each value, and writes ``compare.json``, ``.md`` and ``.png``.

    A run that is finished already is not made again, and a stopped one goes on.

    Args:
        recipe: file or built-in name.
        over: what to exchange: ``model.fusion=concat,late``.
        out: folder of the runs and of the comparison.
        data: replaces the data of the recipe.
        overrides: for all runs, ``"stages.0.epochs=3"`` and the like.
        tell: is told which run begins.

    Returns:
        The things compared in the order of ``over``; none in the helper processes of a distributed
        run, which write nothing.

    Raises:
        RecipeError: fewer than two values, one twice, one that the recipe refuses, or a recipe
            that gives no figures.
        ModelError: a value that no model can be built with.
        DataError: the data have no test split. Nothing has been trained in any of these cases.
    """
    key, values = parse(over)
    recipes = {
        value: load_recipe(recipe, [*overrides, f"{key}={value}"], data=data) for value in values
    }
    pairs = _checked_pairs(recipes)
    for one in recipes.values():
        _check_builds(one)
    accelerator = join_processes()
    rows = []
    for number, (value, one) in enumerate(recipes.items(), 1):
        folder = out / value.replace("/", "-")
        if accelerator.is_main_process:
            tell(f"{number} of {len(recipes)}: {key}={value}")
        _make(one, folder, accelerator)
        if accelerator.is_main_process:
            rows.append(_row(value, folder, pairs[value]))
    if accelerator.is_main_process:
        _write(rows, key, out, str(recipe))
    return rows


def _checked_pairs(recipes: Mapping[str, Recipe]) -> dict[str, Material]:
    """`_checked_pair` of each recipe; equal data are opened once."""
    known: dict[str, Material] = {}
    found = {}
    for value, recipe in recipes.items():
        _check_measured(recipe)
        data = f"{recipe.data.model_dump_json()} {recipe.evaluation.test}"
        if data not in known:
            known[data] = _checked_pair(recipe)
        found[value] = known[data]
    return found


def _check_builds(recipe: Recipe) -> None:
    """Sees that a model can be built: a fault in the last of ten is found before the first trains.

    Raises:
        ModelError: it cannot.
    """
    objectives = {task.objective for stage in recipe.stages for task in stage.tasks}
    heads = {"answer", "classify"} & set(objectives)
    labels: dict[str, Sequence[str]] = {name: ("one", "other") for name in sorted(heads)}
    build_model(recipe, ["one text", "another"], labels)


def _check_measured(recipe: Recipe) -> None:
    """Sees that a recipe gives figures of a test split.

    Raises:
        RecipeError: nothing measures its tasks, or it names no test split.
    """
    if recipe.model.kind == "drawing":
        raise RecipeError(
            "no one figure tells how well a model draws: train each by itself and compare what "
            "`plait evaluate` says of its codes"
        )
    objectives = {task.objective for stage in recipe.stages for task in stage.tasks}
    if recipe.model.kind == "drawing":
        raise RecipeError("models that draw are not compared: train each by itself")
    if recipe.model.kind == "fusion" and not objectives & MEASURED:
        raise RecipeError(
            f"no figures of the test split tell how well {' and '.join(sorted(objectives))} is done, "
            f"so there is nothing to compare: add {' or '.join(sorted(MEASURED))}"
        )
    if recipe.evaluation.test is None:
        raise RecipeError("evaluation.test is null, so there are no figures to compare: set it")


def _checked_pair(recipe: Recipe) -> Material:
    """One pair to measure latency with, of the validation split or else of training.

    Raises:
        DataError: the data have no test split, or no pair.
    """
    dataset, split = opened(recipe), recipe.evaluation.test
    assert split is not None
    if not len(dataset.split(split)):
        raise DataError(
            f"there would be no figures to compare: the {split} split is empty",
            path=recipe.data.source,
        )
    for name in ("validation", "train"):
        pair = _first_pair(dataset.split(name))
        if pair is not None:
            return pair
    problem = with_notes("no pair of a picture and a text to train on", dataset.notes)
    raise DataError(problem, path=recipe.data.source)


def _first_pair(dataset: PairDataset) -> Material | None:
    for place, sample in enumerate(dataset):
        if sample.image is not None and sample.texts:
            return material_of(dataset.select([place]))
    return None


def _make(recipe: Recipe, folder: Path, accelerator: Any) -> None:
    """One run, unless it is finished.

    Every process does what the main one finds in the folder: it writes the last of a run alone,
    while the others are here already.
    """
    found = [RunFolder(folder).status() == "finished", (folder / "recipe.yaml").exists()]
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        found = broadcast_object_list(found)
    finished, begun = found
    if finished:
        _check_same(recipe, folder)
    else:
        train(recipe, out=folder, resume=begun, accelerator=accelerator)


def _check_same(recipe: Recipe, folder: Path) -> None:
    """Sees that a finished run was made with the recipe that is asked for.

    Raises:
        RecipeError: it was not; the first difference is named.
    """
    wanted, made = flat(recipe), flat(read_run_recipe(folder))
    for key in wanted | made:
        if _of_others(key, recipe):
            continue
        if wanted.get(key) != made.get(key):
            raise RecipeError(
                f"{folder} is a finished run with {key} = {made.get(key)}, not {wanted.get(key)}: "
                "give another --out, or delete it"
            )


def _of_others(key: str, recipe: Recipe) -> bool:
    """Whether a key holds sizes of a way of joining that this recipe does not use."""
    used = recipe.model.fusion or recipe.model.bridge
    return key.startswith("model.sizes.") and key.split(".")[2] != getattr(used, "kind", None)


def parse(over: str) -> tuple[str, list[str]]:
    """``"a.b=x,y"`` to the key and its values.

    Raises:
        RecipeError: no ``=``, fewer than two values, or one twice.
    """
    key, equals, listed = over.partition("=")
    values = [value.strip() for value in listed.split(",") if value.strip()]
    if not equals or not key.strip():
        raise RecipeError(f"--over {over!r}: write KEY=VALUE,VALUE, e.g. model.fusion=concat,late")
    if len(values) < 2:
        raise RecipeError(f"--over {over!r}: a comparison needs at least two values")
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise RecipeError(f"--over {over!r}: {twice[0]!r} is there twice")
    return key.strip(), values


def _row(value: str, folder: Path, pair: Material) -> Row:
    result = read_result(folder)
    measure, quality, low, high = _quality(result, folder)
    model = load_model(folder)
    updates = sum(record["kind"] == "update" for record in RunFolder(folder).records())
    seconds = float(result["seconds"].get("train", 0.0))
    return Row(
        value=value,
        run=str(folder),
        measure=measure,
        quality=quality,
        low=low,
        high=high,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=seconds,
        step_ms=1000 * seconds / max(1, updates),
        latency_ms=1000 * latency(model, pair),
        updates=updates,
    )


def _quality(result: dict[str, Any], folder: Path) -> tuple[str, float, float | None, float | None]:
    for name in ("vqa", "classification", "match"):
        if name in result:
            found = result[name]
            low, high = found.get("accuracy_low"), found.get("accuracy_high")
            return f"{name} accuracy, %", found["accuracy"], low, high
    if "mean_recall" in result:
        return "mean recall, %", result["mean_recall"], None, None
    if "captions" in result:
        found = result["captions"]
        return "CIDEr-D", found["cider_d"], found.get("cider_d_low"), found.get("cider_d_high")
    raise DataError("there are no test figures to compare: the test split is empty", path=folder)


def latency(model: Model, pair: Material) -> float:
    """Median seconds of one answer (fusion), of embedding a picture and a text (alignment), or of
    reading a picture and a text and writing the first word (bridge).

    Args:
        model: in any mode.
        pair: one, as its towers take them; its picture is read beforehand.

    Raises:
        DataError: the picture, or what a detector found in it, cannot be used.
    """
    row = InOrder(pair.counts, 1).batch(0, 0)
    sources = sources_of(pair, model, {}, share=not isinstance(model, AlignmentModel))
    parts = {name: source(row) for name, source in sources.items()}
    if isinstance(model, BridgedModel):
        asked = ExampleSource(pair, Wording("<image> {text}", "{text}"), model.writer)
        parts[TEXT] = asked(row)
    batch = Batch(pair.ids, torch.zeros(1, dtype=torch.int64), parts)
    seconds = []
    for _ in range(CALLS):
        with answering(model) as device:
            start = time.perf_counter()
            if isinstance(model, FusionModel):
                model.vector(model.fuse(batch.to(device)))
            elif isinstance(model, BridgedModel):
                model.first_word(batch.to(device))
            else:
                assert isinstance(model, AlignmentModel)
                model.encode(batch.to(device))
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _write(rows: Sequence[Row], key: str, out: Path, recipe: str) -> None:
    write_json(
        out / "compare.json", {"recipe": recipe, "over": key, "rows": [asdict(row) for row in rows]}
    )
    write_text(out / "compare.md", markdown(rows, key, recipe))
    with replacing(out / "compare.png") as temporary:
        draw_comparison(
            [(row.value, row.quality, row.low, row.high, row.step_ms) for row in rows],
            rows[0].measure,
            temporary,
        )


def markdown(rows: Sequence[Row], key: str, recipe: str) -> str:
    """The table."""
    lines = [
        f"# {recipe}: {key} exchanged",
        "",
        f"| {key} | {rows[0].measure} | parameters | one update, ms | one answer, ms | training, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row.quality):
        between = "" if row.low is None else f" ({row.low:.2f} to {row.high:.2f})"
        lines.append(
            f"| {row.value} | {row.quality:.2f}{between} | {row.parameters:,} | {row.step_ms:.1f} | "
            f"{row.latency_ms:.1f} | {row.seconds:.0f} |"
        )
    updates = sorted({row.updates for row in rows})
    lines += ["", f"Updates of each: {' to '.join(map(str, updates))}.", ""]
    return "\n".join(lines)
