"""The demo: train on emoji pictures, check on unseen ones, index, search, report.

It calls the same functions as a user's own run would; only the queries are particular to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plait.core.errors import UserError
from plait.core.files import read_json, write_json

# Shown on the contact sheet; the pictures found are unseen in training.
QUERIES = (
    "something to drink",
    "a wild animal",
    "musical instrument",
    "红色的水果",
    "天气",
    "sports",
)


def run_demo(out: Path, *, seed: int = 0, again: bool = False) -> dict[str, Any]:
    """Makes the demo run in ``out``, or reads the finished one.

    Returns:
        ``run``, ``retrieval`` (English names, both ways), ``languages`` (the same by language),
        ``unseen`` (number of test pictures), ``seconds`` by step, ``cached``.
    """
    summary = out / "demo.json"
    if summary.exists() and not again:
        return {**read_json(summary), "run": str(out), "cached": True}
    if again and out.exists():
        _remove_run(out)
    result = _make(out, seed)
    write_json(summary, result)
    return {**result, "cached": False}


def _remove_run(out: Path) -> None:
    """Deletes a former run; refuses a folder that is none."""
    import shutil

    if not (out / "recipe.yaml").exists():
        raise UserError(f"{out} is not a run folder, so --again does not delete it")
    shutil.rmtree(out)


def _make(out: Path, seed: int) -> dict[str, Any]:
    from plait.data import open_dataset
    from plait.evaluation.report.report import write_report
    from plait.models.store.kinds import aligned
    from plait.models.store.storage import load_model
    from plait.retrieval import build_index, contact_sheet
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import train

    seconds: dict[str, float] = {}
    with _timed(seconds, "pictures"):
        dataset = open_dataset("openmoji")
    # A demo that was stopped goes on where it was, also after its training.
    result = train(load_recipe("demo", [f"seed={seed}"]), out=out, resume="auto").to_json()
    seconds.update(result["seconds"])
    unseen = dataset.split("test")
    model = aligned(load_model(out), "the demo")
    with _timed(seconds, "index"):
        build_index(model, dataset, out / "index", run=out, overwrite=True)
        build_index(model, unseen, out / "index-unseen", run=out, overwrite=True)
    with _timed(seconds, "contact sheet"):
        contact_sheet(_answers(out / "index-unseen", model), out / "sheet.png")
    with _timed(seconds, "report"):
        write_report(out)
    seconds["in all"] = sum(seconds.values())
    return {
        "run": str(out),
        "retrieval": result["languages"]["en"],
        "languages": result["languages"],
        "unseen": len(unseen),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def _answers(index: Path, model: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    from plait.retrieval import open_index

    store = open_index(index)
    vectors = model.embed(texts=list(QUERIES))["text"]
    return [(query, store.search(vector, k=8)) for query, vector in zip(QUERIES, vectors)]


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - start
