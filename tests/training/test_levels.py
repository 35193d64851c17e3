"""``data.levels``: from the recipe into the run, what is searched with it, its bundle and its server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.training.conftest import TINY

from plait import api
from plait.core.errors import RecipeError
from plait.core.modality import IMAGE
from plait.modalities.image.levels import Levels
from plait.modalities.image.preprocess import ImagePreprocess
from plait.runtime.bundle import open_bundle
from plait.serving.base.settings import Limits
from plait.serving.queue.decoders import Decoders
from plait.training.recipe.recipe import load_recipe

WINDOW = Levels(window=(0, 4095))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of 12 bits in files of 16, some of a bright side and some of a bright half above."""
    folder = tmp_path_factory.mktemp("scans")
    lines = []
    for number in range(32):
        values = np.full((20, 20), 100 + 10 * number, np.uint16)
        edge = 2 + number // 2  # of its own: in bfloat16 as well no two of them look alike
        values[: edge if number % 2 else 20, : 20 if number % 2 else edge] = 4095 - 10 * number
        Image.fromarray(values).save(folder / f"{number}.png")
        text = f"bright {'above' if number % 2 else 'at the left'}, number {number}"
        lines.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"data": {"levels": {"window": [0, 4095]}}}))
    api.train(str(recipe), data=str(scans), out=folder / "run")
    return folder / "run"


def test_the_run_keeps_them_and_search_sees_by_them(run: Path, scans: Path, tmp_path: Path) -> None:
    model = api.load(run)
    preprocess = model.tower(IMAGE).encoder.preprocess
    assert isinstance(preprocess, ImagePreprocess) and preprocess.levels == WINDOW
    # The same picture, its values scaled to fill 16 bits by hand, and shown without levels.
    full = np.asarray(Image.open(scans / "3.png")).astype(np.uint32) * 65535 // 4095
    shown = np.repeat((full / 257).round().astype(np.uint8)[..., None], 3, axis=2)
    by_levels, by_hand = model.embed(images=[scans / "3.png", shown])[IMAGE]
    assert float(by_levels @ by_hand) > 0.9999
    api.index(run, str(scans), out=tmp_path / "index")
    (hit,) = api.search(tmp_path / "index", image=scans / "3.png", k=1)
    assert Path(hit["path"]).name == "3.png" and hit["score"] > 0.9999


def test_the_bundle_keeps_them(run: Path, scans: Path, tmp_path: Path) -> None:
    api.export(run, out=tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.image_preprocess.levels == WINDOW
    (row,) = bundle.embed(images=[scans / "3.png"])[IMAGE]
    (expected,) = api.load(run).embed(images=[scans / "3.png"])[IMAGE]
    assert float(row @ expected) > 0.999
    with_decoders = Decoders(Limits())
    try:
        data = (scans / "3.png").read_bytes()
        pixels = with_decoders.pixels(data, bundle.image_preprocess)
        array = with_decoders.picture(data, levels=WINDOW)
    finally:
        with_decoders.close()
    np.testing.assert_array_equal(pixels, bundle.prepare_images([scans / "3.png"])["pixels"][0])
    assert array.max() > 230


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"window": [9, 1]}, "data.levels: window of pictures is .* the lower first"),
        ({}, "need one of window"),
        ({"windows": [0, 1]}, "did you mean 'window'"),
    ],
)
def test_unfit_levels_are_told_with_the_recipe(
    levels: dict[str, object], words: str, tmp_path: Path, scans: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | {"data": {"levels": levels}}))
    with pytest.raises(RecipeError, match=words):
        load_recipe(path, data=str(scans))
