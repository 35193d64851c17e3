"""Things by name, from plait and from a package that was installed beside it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from plait.core.errors import ModelError
from plait.core.registry import Registry

MODULE = """
import torch
from plait.core.batch import Encoded
from plait.encoders.base.base import Encoder, Family
from plait.fusion.concat import ConcatFusion

class Mine(ConcatFusion):
    '''What a user's package brings.'''

class Broken:
    pass

def build(rest, modality, pretrained, options):
    raise AssertionError(f"asked for {rest} of {modality}")

FAMILY = Family("mine", build, build, "one of another package")
"""
USE = """
import sys
import pytest
from plait.core.errors import ModelError
from plait.encoders.registry import FAMILIES, build_encoder
from plait.fusion.registry import FUSIONS, build_fusion
from plait.models.fusion.joints import JOINTS
loaded = set(sys.modules)
assert "braids_of_others" not in loaded, "listing names imported the package"
assert "mine" in FUSIONS and "mine" in JOINTS and list(FUSIONS)[0] == "concat"
assert FUSIONS.package("mine") == "braids-of-others" and FUSIONS.package("late") == "plait"
fusion = build_fusion("mine", widths={"image": 3, "text": 4}, token_widths={"image": 3, "text": 4})
assert type(fusion).__module__ == "braids_of_others"
with pytest.raises(AssertionError, match="asked for x of image"):
    build_encoder("mine/x", modality="image")
with pytest.raises(ModelError, match="'broken' of the package braids-of-others does not load: Attr"):
    FUSIONS["broken"]
with pytest.raises(ModelError, match="'gated' is brought by plait and braids-of-others: uninstall"):
    FUSIONS["gated"]
"""
POINTS = """
[plait.encoders]
mine = braids_of_others:FAMILY

[plait.fusions]
mine = braids_of_others:Mine
broken = braids_of_others:Missing
gated = braids_of_others:Mine
"""


def test_an_installed_package_brings_its_own(tmp_path: Path) -> None:
    install(tmp_path, "braids_of_others", MODULE, POINTS)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["encoders.md", "encoders.zh-CN.md"])
def test_the_page_on_an_encoder_of_your_own(page: str, tmp_path: Path) -> None:
    """Its code as a package: trained, saved, and opened again by another process."""
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text(encoding="utf-8")
    (module,) = re.findall(r"```python\n(# my_encoders\.py\n.*?)```", text, re.DOTALL)
    (points,) = re.findall(
        r'```toml\n\[project.entry-points."(plait.encoders"\]\n.*?)```', text, re.DOTALL
    )
    install(tmp_path, "my_encoders", module, "[" + points.replace('"', ""))
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for number in range(8):
        colour = (30 * number, 255 - 30 * number, 9)
        Image.new("RGB", (32, 32), colour).save(pairs / f"{number}.png")
        (pairs / f"{number}.txt").write_text(f"picture {number} of eight")
    (option,) = set(re.findall(r"--set (\S+=mine/patches)", text))
    train = [
        "train",
        "scratch",
        "--data",
        "pairs",
        "--out",
        "run",
        "--set",
        option,
        "--set",
        "stages.0.epochs=1",
    ]
    once = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    for command in (train, ["embed", "run", "pairs", "--out", "rows.npz"]):
        done = subprocess.run(
            [sys.executable, "-m", "plait", *command],
            cwd=tmp_path,
            env=once,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "model.json").read_text())["towers"]["image"][
        "encoder"
    ] == {
        "family": "mine",
        "width": 64,
    }


def install(folder: Path, name: str, module: str, points: str) -> None:
    """A package as pip leaves it, in a folder of the path."""
    (folder / f"{name}.py").write_text(module)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
    )
    (about / "entry_points.txt").write_text(points)


def test_by_hand() -> None:
    things: Registry[type] = Registry("thing", "plait.nothing", {"path": "pathlib:Path"})
    things.register("mine", int)
    assert list(things) == ["path", "mine"] and len(things) == 2
    assert things["path"] is Path and things["mine"] is int
    assert things.package("mine") == "this program"
    for name in ("path", "mine"):
        with pytest.raises(ModelError, match=f"there is a thing '{name}' already"):
            things.register(name, str)
    with pytest.raises(KeyError):
        things["none"]
    assert "none" not in things and things.get("none") is None
