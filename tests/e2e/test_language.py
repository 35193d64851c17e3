"""Language models that see through the installed command: captions, answers, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

RECIPE = {
    "name": "tiny",
    "model": {
        "kind": "bridge",
        "towers": {"image": {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}}},
        "language": {
            "source": "scratch/decoder",
            "options": {"width": 16, "layers": 1, "heads": 2, "context": 24},
            "vocabulary": {"kind": "word", "size": 40},
        },
        "bridge": {"kind": "mlp"},
    },
    "stages": [
        {
            "tasks": [{"objective": "write"}],
            "train": {"image.encoder": "full", "bridge": "full", "language": "full"},
            "epochs": 2,
            "batch_size": 8,
        }
    ],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, plait: Callable) -> Path:
    """A folder with pictures, a recipe, and a run of it."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "pairs").mkdir()
    rows = []
    for number in range(24):
        name = ("red", "blue")[number % 2]
        colour = (200 - number, 20, 20) if name == "red" else (20, 20, 200 - number)
        Image.new("RGB", (16, 16), colour).save(folder / "pairs" / f"{number}.png")
        split = "train" if number < 16 else "validation" if number < 20 else "test"
        rows.append({"file_name": f"{number}.png", "text": f"a {name} picture", "split": split})
    (folder / "pairs" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    train = ("train", folder / "tiny.yaml", "--data", folder / "pairs", "--out", folder / "run")
    said = plait(*train)
    assert "CIDER-D" in said.out and "plait caption" in said.out
    assert "learned in [[ ]]: [CLS] <image> x 4 [[ a" in said.err  # told before the first update
    return folder


def test_pictures_are_described(place: Path, plait: Callable) -> None:
    pictures = [place / "pairs" / f"{number}.png" for number in (1, 2)]
    found = plait("caption", place / "run", *pictures, "--json").json
    assert [Path(one["image"]) for one in found] == pictures
    assert all(isinstance(one["caption"], str) for one in found)
    drawn = ("caption", place / "run", pictures[0], "--method", "sample", "--seed", "3", "--json")
    assert plait(*drawn).json == plait(*drawn).json
    measured = plait("evaluate", place / "run", "--json").json
    assert measured["captions"]["captions"] == 4
    assert "shuffled pictures" in plait("evaluate", place / "run").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caption", "run", "nowhere.png"], "nowhere.png"),
        (
            ["caption", "run", "pairs/1.png", "--prompt", "<image><image>"],
            "has 2 <image> and there are 1 pictures: write <image> once for each",
        ),
        (
            ["caption", "run", "pairs/1.png", "--prompt", "no place"],
            "has 0 <image> and there are 1 pictures",
        ),
        (
            ["caption", "run", "pairs/1.png", "--prompt", "<image>" + " red" * 30],
            "positions with 4 for each picture, and the language model has 24: shorten it",
        ),
        (["ask", "run", "pairs/1.png", "what?"], "trained to caption, not to answer"),
        (["search", "run", "red"], "run"),
        (
            [
                *("train", "tiny.yaml", "--data", "pairs", "--out", "other"),
                *("--set", "model.language={source: hf/nobody/nothing-here}"),
            ],
            "nobody/nothing-here",
        ),
        (
            [
                *("train", "tiny.yaml", "--data", "pairs", "--out", "other"),
                *("--set", "stages.0.tasks.0.target='{colour}'"),
            ],
            "needs the label 'colour'",
        ),
    ],
)
def test_mistakes(arguments: list[str], message: str, place: Path, plait: Callable) -> None:
    said = plait(*arguments, code=2, cwd=place)
    assert message in " ".join(said.err.split()), said.err
    assert not (place / "other" / "model.safetensors").exists()
