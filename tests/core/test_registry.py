"""Things by name, from plait and from a package that was installed beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plait.core.errors import ModelError
from plait.core.registry import Registry

MODULE = """
import torch
from plait.core.batch import Encoded
from plait.encoders.base import Encoder, Family
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
from plait.models.joints import JOINTS
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
    (tmp_path / "braids_of_others.py").write_text(MODULE)
    about = tmp_path / "braids_of_others-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: braids-of-others\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
