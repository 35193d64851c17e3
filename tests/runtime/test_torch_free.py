"""A bundle runs where torch, and all that needs it, cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from tests.deployment.made import TEXTS, jpeg, picture

import plait
from plait.models.alignment.alignment import AlignmentModel

BLOCKED = ("torch", "torchvision", "timm", "transformers", "jaxtyping", "pydantic", "safetensors")

PROGRAM = """
import json, sys, time
start = time.perf_counter()

for name in sys.argv[4].split(","):
    sys.modules[name] = None  # as if it were not installed

from plait.runtime import open_bundle

bundle = open_bundle(sys.argv[1], engine=sys.argv[2], precision="float32", threads=1)
texts = json.loads(sys.argv[5])
rows = bundle.embed(images=[sys.argv[3]], texts=texts)
seconds = time.perf_counter() - start
print(json.dumps({
    "image": rows["image"].tolist(), "text": rows["text"].tolist(), "seconds": seconds,
    "modules": sorted({name.split(".")[0] for name, module in sys.modules.items() if module}),
}))
"""


def run(python: str | Path, folder: Path, engine: str, file: Path, cwd: Path) -> dict:
    arguments = [str(folder), engine, str(file), ",".join(BLOCKED), json.dumps(TEXTS)]
    done = subprocess.run(
        [str(python), "-W", "error", "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(1)))
    return tmp_path / "a.jpg"


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_without_torch(engine: str, folder: Path, model: AlignmentModel, file: Path) -> None:
    pytest.importorskip(engine)
    found = run(sys.executable, folder, engine, file, file.parent)
    assert not set(BLOCKED) & set(found["modules"])
    expected = model.embed(images=[file], texts=TEXTS)
    for name in ("image", "text"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_in_an_environment_of_its_own(
    engine: str, folder: Path, model: AlignmentModel, file: Path, tmp_path: Path
) -> None:
    """numpy, Pillow, tokenizers, one engine, and plait without what it depends on."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    source = Path(plait.__file__).parents[2]
    for what in (["numpy", "pillow", "tokenizers", engine], ["--no-deps", str(source)]):
        subprocess.run([python, "-m", "pip", "install", "-q", *what], check=True, timeout=900)
    run(python, folder, engine, file, tmp_path)  # compiles every module
    found = run(python, folder, engine, file, tmp_path)
    expected = model.embed(images=[file], texts=TEXTS)
    for name in ("image", "text"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-6)
    assert found["seconds"] < 2
