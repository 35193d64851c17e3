"""What is learnt and chosen does not depend on the test split: two sources that differ there alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from plait.core.errors import DataError
from plait.data.base.splits import split_of
from plait.training.recipe.schema import Recipe
from plait.training.run.run import train
from plait.training.run.run_folder import RunFolder

Tiny = Callable[..., Recipe]


def stated(source: Path, target: Path) -> dict[str, list[int]]:
    """A copy of the pictures whose metadata state the split of each; the numbers of every split."""
    shutil.copytree(source, target)
    numbers: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    lines = []
    for line in (source / "metadata.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        number = int(row["file_name"].removesuffix(".png"))
        split = split_of(f"picture {number}")
        numbers[split].append(number)
        lines.append(json.dumps({**row, "split": split}))
    (target / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return numbers


def change(folder: Path, numbers: list[int], *, texts: bool = True) -> None:
    """Other pictures, and other texts, for some samples."""
    random = np.random.default_rng(0)
    for number in numbers:
        noise = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        if texts and int(row["file_name"].removesuffix(".png")) in numbers:
            row["text"] = [f"something else altogether {row['file_name']}"]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def outcome(recipe: Recipe, source: Path, out: Path) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The weights of a run, and what it logged but for the times."""
    data = recipe.data.model_copy(update={"source": str(source)})
    train(recipe.model_copy(update={"data": data}), out=out)
    records = [
        {key: value for key, value in record.items() if "second" not in key and "rate" not in key}
        for record in RunFolder(out).records()
        if record["kind"] == "validation"
    ]
    return load_file(out / "model.safetensors"), records


def test_weights_and_choices_do_not_depend_on_the_test_split(
    tiny: Tiny, colours: Path, tmp_path: Path
) -> None:
    recipe = tiny("evaluation.best=true", "stages.0.epochs=3")
    numbers = stated(colours, tmp_path / "a")
    assert all(len(part) >= 4 for part in numbers.values()), numbers
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    change(tmp_path / "b", numbers["test"])
    weights, records = outcome(recipe, tmp_path / "a", tmp_path / "run-a")
    others, other_records = outcome(recipe, tmp_path / "b", tmp_path / "run-b")
    assert records, "a run that was never validated shows nothing"
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)
    assert records == other_records


def test_and_do_depend_on_the_others(tiny: Tiny, colours: Path, tmp_path: Path) -> None:
    """So that the test above can fail: changed training pairs change weights, and so on."""
    recipe = tiny("evaluation.best=false", "stages.0.epochs=1")
    numbers = stated(colours, tmp_path / "a")
    weights, records = outcome(recipe, tmp_path / "a", tmp_path / "run-a")
    for split in ("train", "validation"):
        folder = tmp_path / split
        shutil.copytree(tmp_path / "a", folder)
        change(folder, numbers[split], texts=False)
        others, other_records = outcome(recipe, folder, tmp_path / f"run-{split}")
        same = all(np.array_equal(value, others[name]) for name, value in weights.items())
        assert same == (split == "validation")
        assert records != other_records


def test_a_run_does_not_go_on_with_other_data_of_the_same_number(
    tiny: Tiny, colours: Path, tmp_path: Path
) -> None:
    stated(colours, tmp_path / "a")
    recipe = tiny()
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"source": str(tmp_path / "a")})}
    )
    run, data = RunFolder(tmp_path / "run"), {"source": "a", "samples": 64, "fingerprint": "one"}
    run.begin(recipe, data, resume=False)
    (tmp_path / "run" / "checkpoints" / "step-1").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step-1" / "state.json").write_text("{}")
    run.close()
    with pytest.raises(DataError, match=r"data have changed .*64 samples then, 64 now"):
        RunFolder(tmp_path / "run").begin(recipe, {**data, "fingerprint": "two"}, resume=True)
