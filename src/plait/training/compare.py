"""The same recipe with one thing exchanged: a run each, one table and one chart.

compare("vqa", "model.fusion=concat,late,gated", out=Path("runs/fusion"))
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plait.core.errors import DataError, RecipeError
from plait.core.files import replacing, write_json, write_text
from plait.evaluation.compare_chart import draw_comparison
from plait.models.asking import batch_of
from plait.models.embedding import answering
from plait.models.fusion_model import FusionModel
from plait.models.kinds import Model
from plait.models.storage import load_model
from plait.training.recipe import load_recipe, read_run_recipe
from plait.training.run import read_result, train
from plait.training.run_folder import RunFolder, flat
from plait.training.schema import Recipe

CALLS = 30  # single answers that latency is the median of


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
        latency_ms: of one answer or embedding alone, median.
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

    Raises:
        RecipeError: fewer than two values, one twice, or one that the recipe refuses.
        DataError: the recipe has no test split.
    """
    key, values = parse(over)
    recipes = {
        value: load_recipe(recipe, [*overrides, f"{key}={value}"], data=data) for value in values
    }
    rows = []
    for number, (value, one) in enumerate(recipes.items(), 1):
        tell(f"{number} of {len(recipes)}: {key}={value}")
        folder = out / value.replace("/", "-")
        if RunFolder(folder).status() == "finished":
            _check_same(one, folder)
        else:
            train(one, out=folder, resume=(folder / "recipe.yaml").exists())
        rows.append(_row(value, folder))
    _write(rows, key, out, str(recipe))
    return rows


def _check_same(recipe: Recipe, folder: Path) -> None:
    """Sees that a finished run was made with the recipe that is asked for.

    Raises:
        RecipeError: it was not; the first difference is named.
    """
    wanted, made = flat(recipe), flat(read_run_recipe(folder))
    for key in wanted | made:
        if wanted.get(key) != made.get(key):
            raise RecipeError(
                f"{folder} is a finished run with {key} = {made.get(key)}, not {wanted.get(key)}: "
                "give another --out, or delete it"
            )


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


def _row(value: str, folder: Path) -> Row:
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
        latency_ms=1000 * latency(model),
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
    raise DataError("there are no test figures to compare: the test split is empty", path=folder)


def latency(model: Model) -> float:
    """Median seconds of one answer (fusion) or one picture and one text (alignment) alone."""
    import numpy as np

    from plait.data.sample import BytesRef

    seconds = []
    if isinstance(model, FusionModel):
        ref = BytesRef(_grey(), "grey.png")
        batch = batch_of(model, [ref], ["what is this?"])
        for _ in range(CALLS):
            with answering(model):
                start = time.perf_counter()
                model.vector(model.fuse(batch))
                seconds.append(time.perf_counter() - start)
    else:
        picture = np.full((64, 64, 3), 127, np.uint8)
        for _ in range(CALLS):
            start = time.perf_counter()
            model.embed(images=[picture], texts=["what is this?"])
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _grey() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64), (127, 127, 127)).save(file, "PNG")
    return file.getvalue()


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
