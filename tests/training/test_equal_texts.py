"""Training where texts repeat: positives, refusals, and the key that turns it off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from plait.core.batch import Batch, ModalityInput
from plait.core.clock import Clock
from plait.core.errors import DataError
from plait.data.audit.audit import audit
from plait.objectives import info_nce_plain, sigmoid_loss_plain
from plait.training.batches.rows import Rows
from plait.training.recipe.schema import Recipe
from plait.training.run.run import opened, train
from plait.training.run.stage_data import StageData
from plait.training.tasks.tasks import Contrast, ContrastiveTask

COLOURS = ("red", "green", "blue")


def folders(path: Path, text: Callable[[int], str], count: int = 24) -> Path:
    """Pictures of three colours, all in one split but a few, each with one text."""
    path.mkdir()
    lines = []
    for number in range(count):
        shade = np.full((20, 20, 3), 4 * number, np.uint8)
        shade[..., number % 3] = 255
        Image.fromarray(shade).save(path / f"{number}.png")
        split = "train" if number < count - 6 else ("validation", "test")[number % 2]
        lines.append(
            json.dumps({"file_name": f"{number}.png", "text": text(number), "split": split})
        )
    (path / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def on(recipe: Recipe, data: Path) -> Recipe:
    """The same recipe on other pairs."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": str(data)})})


def data_of(recipe: Recipe) -> StageData:
    return StageData(recipe, opened(recipe), Clock(), Accelerator(cpu=True))


def test_pictures_of_one_text_are_one_group_in_a_batch(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    data = folders(tmp_path / "d", lambda n: ("A {}.", "a {}")[n % 2].format(COLOURS[n % 3]))
    for equal, groups in (("same", 3), ("apart", 18)):
        recipe = on(tiny(f"data.equal_texts={equal}"), data)
        found = data_of(recipe)
        stage = recipe.stages[0]
        alike = found._alike(found.training, stage)
        every = np.arange(18)
        ids = alike(Rows(every, every, np.zeros_like(every), 0))
        assert len(np.unique(ids)) == groups
        if equal == "same":
            assert [ids[n] == ids[0] for n in range(18)] == [n % 3 == 0 for n in range(18)]


@pytest.mark.parametrize("objective", ["info_nce", "sigmoid"])
def test_rows_of_equal_ids_are_positives_of_the_loss(objective: Any) -> None:
    torch.manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(6, 4)) for _ in range(2))
    ids = torch.tensor([0, 1, 0, 3, 1, 5])

    class Model:
        scale, bias, heads = torch.tensor(5.0), torch.tensor(-2.0), 1

        def encode(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {"image": image, "text": text}

    inputs = ModalityInput.of(x=torch.zeros(6))
    batch = Batch([""] * 6, ids, {"image": inputs, "text": inputs})
    found = ContrastiveTask(Model(), [Contrast(objective)]).loss(batch).total
    plain = (
        info_nce_plain(image, text, 5.0, ids, ids)
        if objective == "info_nce"
        else sigmoid_loss_plain(image, text, 5.0, -2.0, ids, ids)
    )
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("equal", ["same", "apart"])
def test_one_text_for_all_is_refused_and_audited(
    tiny: Callable[..., Recipe], tmp_path: Path, equal: str
) -> None:
    data = folders(tmp_path / "d", lambda n: ("a thing", "A thing!")[n % 2])
    recipe = on(tiny(f"data.equal_texts={equal}"), data)
    with pytest.raises(DataError, match=r"18 pairs and one text: all of them read 'a thing'"):
        data_of(recipe)
    assert audit(data).counts["one-text"] == 1


def test_one_group_is_refused(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    data = folders(tmp_path / "d", lambda n: f"thing {n}")
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    for line in lines:
        line["group"] = "one" if line["split"] == "train" else line["file_name"]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    recipe = on(tiny(), data)
    with pytest.raises(DataError, match="one group: all of them show the same thing"):
        data_of(recipe)


def test_nearly_one_text_is_a_warning(tmp_path: Path) -> None:
    mostly = folders(tmp_path / "d", lambda n: "a thing" if n else "another")
    found = [row for row in audit(mostly).rows if row.kind == "mostly-one-text"]
    assert len(found) == 1 and "17 of 18" in found[0].detail
    half = folders(tmp_path / "e", lambda n: "a thing" if n % 2 else f"other {n}")
    assert not {"one-text", "mostly-one-text"} & set(audit(half).counts)


def test_class_folders_from_training_to_the_report(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    data = folders(tmp_path / "d", lambda n: f"a {COLOURS[n % 3]} field")
    recipe = on(tiny("evaluation.test=test", "stages.0.epochs=1"), data)
    train(recipe, out=tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    # three test pictures, each of another class
    ask = report["retrieval"]["image_to_text"]
    assert ask["queries"] == 3 and "from 3 pictures" in report["cautions"][0]
    page, web = ((tmp_path / "run" / name).read_text() for name in ("report.md", "report.html"))
    assert "from 3 pictures" in page and "from 3 pictures" in web
    assert "| text to image | 3 | 3 |" in page
    floors = [
        json.loads(line)["floor"]
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "update"
    ]
    assert floors and all(floor > 0.5 for floor in floors)
