"""Models that draw: trained in two stages by recipe, resumed, saved, and drawn from."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from plait import api
from plait.core.clock import Clock
from plait.core.errors import Interrupted, ModelError, RecipeError, UserError
from plait.core.media import FileRef
from plait.data import open_dataset
from plait.modalities.image.fast_decode import load_pixels
from plait.models.alignment.alignment import AlignmentModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.store.storage import load_model
from plait.retrieval.sheet.drawn import draw_pictures, write_drawn
from plait.training.build.build import build_model
from plait.training.recipe.recipe import check
from plait.training.run.run import train
from plait.training.run.stage_data import StageData
from plait.training.run.watch import Recorder
from plait.training.tasks.drawing import PROGRESS, heat

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of one colour with its name."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for number in range(40):
        name = list(COLOURS)[number % 2]
        shade = tuple(max(0, value - number // 4 * 2) for value in COLOURS[name])
        Image.new("RGB", (16, 16), shade).save(folder / f"{number}.png")
        split = "train" if number < 28 else "validation" if number < 34 else "test"
        rows.append({"file_name": f"{number}.png", "text": f"a {name} picture", "split": split})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def recipe_of(source: Path, **changes: Any) -> Any:
    shared = {"batch_size": 14, "optimiser": {"lr": 0.01}, "precision": "float32"}
    codes = {"name": "codes", "tasks": [{"objective": "dvae"}], "epochs": 24, **shared}
    texts = {"name": "texts", "tasks": [{"objective": "draw"}], "epochs": 15, **shared}
    drawing = {
        "dvae": {
            "image_size": 16,
            "codes": 8,
            "layers": 2,
            "width": 8,
            "blocks": 1,
            "code_width": 8,
        },
        "transformer": {"text_length": 6, "width": 16, "layers": 2, "heads": 2, "kernel": 3},
        "vocabulary": {"kind": "word", "size": 30},
    }
    return check(
        {
            "name": "tiny",
            "data": {"source": str(source)},
            "model": {
                "kind": "drawing",
                "drawing": changes.pop("drawing", drawing),
                "init_from": changes.pop("init_from", None),
            },
            "stages": changes.pop("stages", [codes, texts]),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(recipe_of(pairs), out=out)
    return out


def test_both_stages_learn(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert report["reconstruction"]["psnr"] > 15
    codes = report["codes"]
    assert (
        codes["with_text"] < codes["without_text"] and codes["with_text"] < codes["shuffled_texts"]
    )
    assert report["counts"] == {"pictures": 6, "texts": 6}


def test_the_same_after_loading_and_with_the_same_seed(
    run: Path, pairs: Path, tmp_path: Path
) -> None:
    model = load_model(run)
    assert isinstance(model, DrawingModel)
    first = api.draw(run, "a red picture", 3, out=tmp_path / "a", seed=7)
    again = api.draw(model, "a red picture", 3, out=tmp_path / "b", seed=7)
    pictures = [Path(one["path"]).read_bytes() for one in first["pictures"]]
    assert pictures == [Path(one["path"]).read_bytes() for one in again["pictures"]]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "01.png",
        "02.png",
        "03.png",
        "sheet.png",
    ]
    colours = [
        draw_pictures(model, f"a {name} picture", temperature=0.0)[0]
        .pixels.mean(axis=(0, 1))
        .argmax()
        for name in COLOURS
    ]
    assert colours == [0, 2]
    measured = api.evaluate(run)
    report = json.loads((run / "report.json").read_text())
    assert measured["reconstruction"] == report["reconstruction"]
    assert measured["codes"] == report["codes"]
    assert "share of the codes in use" in (run / "report.md").read_text()
    assert "plait draw" in (run / "report.html").read_text()


def test_a_judge_orders_candidates(run: Path, tmp_path: Path) -> None:
    """It finds the second picture of three the nearest, and the first the next."""
    model = load_model(run)
    assert isinstance(model, DrawingModel)

    class Judge(AlignmentModel):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def similarity(self, images: Any, texts: Any) -> np.ndarray:
            assert [image.shape for image in images] == [(16, 16, 3)] * 3 and len(texts) == 1
            return np.array([[0.2], [0.5], [-0.1]], dtype=np.float32)

    plain = draw_pictures(model, "a red picture", 3, seed=1)
    chosen = draw_pictures(model, "a red picture", 2, candidates=3, judge=Judge(), seed=1)
    assert [(one.number, one.score) for one in chosen] == [(2, 0.5), (1, 0.2)]
    assert all((plain[one.number - 1].pixels == one.pixels).all() for one in chosen)
    written = write_drawn(chosen, "a red picture", tmp_path / "sheet.png")
    assert written == [
        {"number": 2, "score": 0.5, "path": None},
        {"number": 1, "score": 0.2, "path": None},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_the_upper_part_of_a_picture_is_kept(run: Path, pairs: Path) -> None:
    model = load_model(run)
    assert isinstance(model, DrawingModel)
    blue = pairs / "1.png"
    (kept,) = draw_pictures(model, "a red picture", prime=blue, prime_rows=3, temperature=0.0)
    pixels = torch.as_tensor(load_pixels([FileRef(blue)], model.pixels)[0])
    made = model.draw(["a red picture"], prime=pixels, prime_rows=3, temperature=0.0)
    assert (made[0, 0].permute(1, 2, 0).numpy() == kept.pixels).all()
    assert kept.pixels[:4].mean(axis=(0, 1)).argmax() == 2


def test_a_stopped_run_goes_on_as_if_it_had_not(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in each stage: the noise, the temperature and the codes are those of one run."""
    shared = {"batch_size": 14, "optimiser": {"lr": 0.01}, "precision": "float32"}
    codes = {"name": "codes", "tasks": [{"objective": "dvae", "kl_weight": 1e-3}], "epochs": 3}
    texts = {"name": "texts", "tasks": [{"objective": "draw", "drop_text": 0.5}], "epochs": 3}
    recipe = recipe_of(
        pairs,
        stages=[{**codes, **shared}, {**texts, **shared, "ema": 0.5}],
        evaluation={"test": None},
    )
    whole = train(recipe, out=tmp_path / "whole").run
    updated = Recorder.updated
    for stop in (3, 9):

        def stopping(
            self: Recorder, position: Any, record: Any, factor: float, at: int = stop
        ) -> None:
            updated(self, position, record, factor)
            if position.run_step == at:
                # What Ctrl-C would call. No real signal: pytest has it delivered on faulthandler's
                # own stack, and where OpenVINO ran before in the process that is fatal (SIGSEGV).
                handler = signal.getsignal(signal.SIGINT)
                assert callable(handler) and handler is not signal.default_int_handler
                handler(signal.SIGINT, None)

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "updated", stopping)
            with pytest.raises(Interrupted):
                train(recipe, out=tmp_path / "parts", resume=stop > 3)
    parts = train(recipe, out=tmp_path / "parts", resume=True).run
    one, other = (load_model(folder).state_dict() for folder in (whole, parts))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_each_stage_trains_its_part_alone(pairs: Path, tmp_path: Path) -> None:
    """The second starts from the first run's weights, and leaves the discrete VAE as it is."""
    shared = {"batch_size": 14, "epochs": 1, "precision": "float32"}
    recipe = recipe_of(pairs, stages=[{"tasks": [{"objective": "dvae"}], **shared}])
    fresh = build_model(recipe, ["a red picture", "a blue picture"]).state_dict()
    first = load_model(train(recipe, out=tmp_path / "first").run).state_dict()
    second = recipe_of(
        pairs,
        stages=[{"tasks": [{"objective": "draw"}], **shared}],
        init_from=str(tmp_path / "first"),
    )
    after = load_model(train(second, out=tmp_path / "second").run).state_dict()
    for name, value in first.items():
        mine = name.startswith("dvae.")
        assert torch.equal(value, fresh[name]) != mine, name
        assert torch.equal(value, after[name]) == mine, name


def test_the_temperature_falls_to_its_lowest_for_the_last_quarter() -> None:
    assert heat(0.0, 0.1) == pytest.approx(1.0)
    assert heat(0.375, 0.1) == pytest.approx(0.55)
    assert heat(0.75, 0.1) == heat(1.0, 0.1) == pytest.approx(0.1)


def test_progress_is_that_of_the_stage(pairs: Path) -> None:
    recipe = recipe_of(pairs)
    data = StageData(recipe, open_dataset(str(pairs)), Clock(), Accelerator(cpu=True))
    model = build_model(recipe, list(data.texts()))
    supply = data.supply(model, 0)
    assert supply.steps == 2
    batch = supply.batch(3, 1)
    assert batch.targets[PROGRESS].tolist() == pytest.approx([7 / 48] * 14)
    assert set(batch.modalities) == {"image"}
    drawn = data.supply(model, 1).batch(0, 0)
    assert drawn.modalities["image"].tensors["codes"].shape == (14, 4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drawing": None}, "model.drawing: a model of kind drawing needs it"),
        (
            {"drawing": {"transformer": {"kinds": ["rows"]}}},
            r"no attention kind 'rows'; did you mean 'row'\?",
        ),
        ({"stages": [{"tasks": [{"objective": "write"}], "epochs": 1}]}, "no objective of a model"),
        (
            {"stages": [{"tasks": [{"objective": "draw"}], "epochs": 1}]},
            "a discrete VAE that no stage trains",
        ),
        (
            {"stages": [{"tasks": [{"objective": "dvae", "drop_text": 0.3}], "epochs": 1}]},
            "belongs to draw, not dvae",
        ),
        (
            {"stages": [{"tasks": [{"objective": "dvae"}] * 2, "epochs": 1}]},
            "a stage of a drawing model has one task",
        ),
        (
            {
                "stages": [
                    {
                        "tasks": [{"objective": "dvae"}],
                        "train": {"transformer": "full"},
                        "epochs": 1,
                    }
                ]
            },
            "the objective dvae doesn't train it",
        ),
        (
            {
                "stages": [
                    {"tasks": [{"objective": "dvae"}], "train": {"dvae": "lora"}, "epochs": 1}
                ]
            },
            "LoRA is for encoders and language models",
        ),
    ],
)
def test_mistakes_in_recipes_are_named(change: dict[str, Any], message: str, pairs: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(pairs, **change)


def test_sizes_that_do_not_fit_are_told_before_training(pairs: Path, tmp_path: Path) -> None:
    drawing = {"dvae": {"image_size": 20, "layers": 3}}
    with pytest.raises(ModelError, match="can't be halved 3 times"):
        train(recipe_of(pairs, drawing=drawing), out=tmp_path / "run")
    with pytest.raises(RecipeError, match="no one figure tells how well a model draws"):
        api.compare("draw", "stages.0.epochs=1,2", out=tmp_path / "compared")


def test_what_cannot_be_drawn_is_told(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    for arguments, options, message in (
        ((" ",), {}, "the text is empty"),
        (("red", 0), {}, "n must be at least 1, not 0"),
        (("red", 4), {"candidates": 8}, "chosen by an alignment model"),
        (("red", 1), {"prime_rows": 2}, "prime_rows needs prime"),
        (("red", 1), {"prime": tmp_path / "none.png"}, "none.png"),
        (("red", 1), {"top_k": 0}, "top_k must be at least 1"),
        (("red", 1), {"temperature": -1.0}, "temperature must be 0 or more"),
        (
            ("red", 1),
            {"rerank": run},
            "needs an alignment model, this run holds a model that draws",
        ),
    ):
        with pytest.raises(UserError, match=message):
            api.draw(run, *arguments, out=out, **options)  # type: ignore[arg-type]
    assert not out.exists()
    out.write_bytes(b"mine")
    with pytest.raises(UserError, match="does not overwrite it"):
        api.draw(run, "red", out=out)
    assert out.read_bytes() == b"mine"
    with pytest.raises(UserError, match=r"let the name end in \.png"):
        api.draw(run, "red", out=tmp_path / "sheet.jpg")


def test_the_command(run: Path, tmp_path: Path) -> None:
    def plait(*arguments: object, code: int = 0) -> str:
        command = [str(Path(sys.executable).with_name("plait")), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    folder = tmp_path / "folder"
    options = ["-n", 9, "--top-k", 4, "--guidance", 1.5, "--seed", 3, "--json"]
    told = json.loads(plait("draw", run, "a red picture", "--out", folder, *options))
    assert told["sheet"] == str(folder / "sheet.png")
    assert [one["number"] for one in told["pictures"]] == list(range(1, 10))
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.height > 1000  # nine pictures take two rows of 256 points
    assert "the text is empty" in plait("draw", run, "", "--out", tmp_path / "no.png", code=2)
