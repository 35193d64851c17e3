"""Clips in place of pictures: the order of frames reaches the language model."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from plait import api
from plait.core.batch import Encoded, ModalityInput
from plait.core.media import FileRef
from plait.modalities.image.clips import frames_of
from plait.modalities.image.fast_decode import load_pixels
from plait.models.bridged.model import BridgedModel
from plait.models.store.storage import load_model
from plait.training.recipe.recipe import check
from plait.training.run.run import train

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that go from one colour to another, each way; their frames as a set are the same."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(24):
        order = ["red", "blue"] if number % 2 else ["blue", "red"]
        shades = [tuple(max(0, c - number) for c in COLOURS[name]) for name in order]
        pictures = [Image.new("RGB", (32, 32), shade) for shade in shades for _ in range(3)]
        name = f"{number}.gif"
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:], duration=50)
        split = "train" if number < 14 else "validation" if number < 18 else "test"
        rows.append((name, f"from {order[0]} to {order[1]}", split))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "text", "split"), *rows])
    return folder


def recipe_of(clips: Path, epochs: int) -> Any:
    bridge = {
        "kind": "resampler",
        "options": {"latents": 2, "layers": 1, "heads": 2, "head_width": 8, "frames": 4},
    }
    return check(
        {
            "name": "clips",
            "data": {"source": str(clips)},
            "model": {
                "kind": "bridge",
                "towers": {
                    "image": {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}}
                },
                "language": {
                    "source": "scratch/decoder",
                    "options": {"width": 16, "layers": 2, "heads": 2, "context": 32},
                    "vocabulary": {"kind": "word", "size": 30},
                },
                "bridge": bridge,
            },
            "stages": [
                {
                    "tasks": [{"objective": "write", "prompt": "<image>", "target": "{text}"}],
                    "train": {"image.encoder": "full", "bridge": "full", "language": "full"},
                    "epochs": epochs,
                    "batch_size": 14,
                    "precision": "float32",
                    "augment": [{"kind": "flip"}],
                    "optimiser": {"lr": 0.01},
                }
            ],
            "evaluation": {"every": 100},
        }
    )


def test_frames_meet_in_the_bridge(clips: Path, tmp_path: Path) -> None:
    """What the language model sees of a clip, put together by hand; it changes with the order."""
    model = load_model(train(recipe_of(clips, 1), out=tmp_path / "run").run)
    assert isinstance(model, BridgedModel) and model.frames == 4
    one, other = FileRef(clips / "22.gif"), FileRef(clips / "23.gif")
    preprocess = model.tower("image").encoder.preprocess
    pixels = torch.as_tensor(load_pixels(frames_of([one, other], 4), preprocess))
    rows = torch.tensor([[0], [1], [0]])
    with torch.no_grad():
        present = torch.ones(3, dtype=torch.bool)
        seen = model.see(ModalityInput({"pixels": pixels, "rows": rows}, present)).tokens
        encoded = model.tower("image").encoder(ModalityInput.of(pixels=pixels[4:]))
        tokens = encoded.tokens.flatten(0, 1)[None]
        joined = Encoded(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), tokens.mean(1))
        expected, _ = model.bridge(joined, frames=4)
        backwards = {"pixels": pixels[:4].flip(0), "rows": rows[:1]}
        turned = model.see(ModalityInput(backwards, present[:1])).tokens
    torch.testing.assert_close(seen[1, 0], expected[0])
    torch.testing.assert_close(seen[2], seen[0], rtol=0, atol=0)
    assert (turned[0] - seen[0]).abs().max() > 1e-3
    told = api.caption(tmp_path / "run", [clips / "22.gif", clips / "0.gif"])
    assert len(told) == 2


@pytest.mark.slow
def test_clips_are_told_by_the_order_of_their_frames(clips: Path, tmp_path: Path) -> None:
    result = train(recipe_of(clips, 300), out=tmp_path / "run")
    # Words in the right order: BLEU-4 knows it, BLEU-1 does not.
    assert result.metrics["captions"]["bleu_4"] == pytest.approx(100)
    told = api.caption(tmp_path / "run", [clips / "22.gif", clips / "23.gif"])
    assert [one["caption"] for one in told] == ["from blue to red", "from red to blue"]
