"""What is wrong with a bundle is told before anything runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plait.core.errors import MissingExtra, ModelError, UserError
from plait.runtime import choose as choosing
from plait.runtime import open_bundle
from plait.runtime.choose import choose
from plait.runtime.manifest import Graph, add_graph, read_manifest


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def changed(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = copy / "manifest.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_every_file_is_named_with_its_hash(folder: Path) -> None:
    value = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert set(value["files"]) == files - {"manifest.json"}
    for name, found in value["files"].items():
        assert found == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (graph,) = value["towers"]["image"]["graphs"]
    assert graph["sha256"] == value["files"]["image.onnx"]
    assert graph["bytes"] == (folder / "image.onnx").stat().st_size
    pixels = {"dtype": "uint8", "shape": ["batch", 3, 32, 32]}
    assert value["towers"]["image"]["inputs"] == {"pixels": pixels}


def test_a_changed_graph_is_refused_when_it_is_used(copy: Path) -> None:
    data = bytearray((copy / "text.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "text.onnx").write_bytes(data)
    bundle = open_bundle(copy)
    assert bundle.embed(images=[]) is not None  # the other tower is whole
    with pytest.raises(ModelError, match=r"text\.onnx is not the file that manifest\.json"):
        bundle.embed(texts=["a"])


def test_changed_preprocessing_is_refused(copy: Path) -> None:
    path = copy / "image_preprocess.json"
    path.write_text(path.read_text(encoding="utf-8").replace("bilinear", "nearest") + " ")
    with pytest.raises(ModelError, match=r"image_preprocess\.json is not the file"):
        open_bundle(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "text.onnx").unlink()
    with pytest.raises(ModelError, match=r"text\.onnx is missing: the bundle is incomplete"):
        open_bundle(copy)
    bundle = open_bundle(copy, elsewhere=["text"])  # a machine with the image tower alone
    assert bundle.embed(images=[np.zeros((9, 9, 3), np.uint8)])["image"].shape == (1, 12)
    with pytest.raises(ModelError, match="text tower of this bundle runs elsewhere"):
        bundle.embed(texts=["a"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda value: value.update(version=9), "has version 9, this plait reads 1"),
        (lambda value: value.update(format="zip"), "is not the manifest of a plait bundle"),
        (lambda value: value.pop("towers"), "lacks 'towers'"),
        (lambda value: value.update(kind="drawing"), "unknown kind, 'drawing'"),
        (lambda value: value["files"].update({"../x": ""}), "leads out of the bundle"),
        (lambda value: value["files"].update({"/x": ""}), "leads out of the bundle"),
        (
            lambda value: value["towers"]["text"]["graphs"][0].update(file="../../text.onnx"),
            "leads out of the bundle",
        ),
        (
            lambda value: value["towers"]["text"]["graphs"][0].update(format="pickle"),
            "format is 'pickle'; it can be onnx, openvino",
        ),
        (lambda value: value.update(towers=[]), "is damaged"),
    ],
)
def test_a_manifest_that_cannot_be_used(
    copy: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    changed(copy, change)
    with pytest.raises(ModelError, match=told):
        open_bundle(copy)


def test_no_bundle_and_a_damaged_manifest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no bundle: it has no manifest\.json"):
        open_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"manifest\.json is damaged"):
        open_bundle(tmp_path)


def test_a_graph_is_added_and_replaced(copy: Path) -> None:
    for content in (b"first", b"second"):
        (copy / "text.int8.xml").write_bytes(content)
        (copy / "text.int8.bin").write_bytes(b"weights")
        add_graph(
            copy,
            "text",
            "text.int8.xml",
            format="openvino",
            precision="int8",
            parts=["text.int8.bin"],
        )
    manifest = read_manifest(copy)
    float32, int8 = manifest.tower("text").graphs
    assert float32.precision == "float32"
    assert (int8.bytes, int8.parts) == (6 + 7, ("text.int8.bin",))
    assert int8.sha256 == hashlib.sha256(b"second").hexdigest()
    assert manifest.files["text.int8.bin"] == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(ModelError, match="not 'audio'"):
        add_graph(copy, "audio", "text.int8.xml", format="openvino", precision="int8")


FLOAT = Graph("a.onnx", "onnx", "float32", 1, "")
INT8_ONNX = Graph("a.int8.onnx", "onnx", "int8", 1, "")
INT8_XML = Graph("a.int8.xml", "openvino", "int8", 1, "", ("a.int8.bin",))


@pytest.mark.parametrize(
    ("installed", "bf16", "graphs", "engine", "precision", "expected"),
    [
        ("both", True, [FLOAT], "auto", "auto", ("openvino", "bfloat16", FLOAT)),
        ("both", False, [FLOAT], "auto", "auto", ("openvino", "float32", FLOAT)),
        ("both", True, [FLOAT, INT8_ONNX], "auto", "auto", ("openvino", "int8", INT8_ONNX)),
        (
            "both",
            True,
            [FLOAT, INT8_ONNX, INT8_XML],
            "auto",
            "auto",
            ("openvino", "int8", INT8_XML),
        ),
        ("both", True, [FLOAT, INT8_XML], "onnxruntime", "auto", ("onnxruntime", "float32", FLOAT)),
        ("onnxruntime", True, [FLOAT], "auto", "auto", ("onnxruntime", "float32", FLOAT)),
        ("both", True, [FLOAT, INT8_XML], "openvino", "float32", ("openvino", "float32", FLOAT)),
    ],
)
def test_the_best_graph_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
    installed: str,
    bf16: bool,
    graphs: list[Graph],
    engine: str,
    precision: str,
    expected: tuple[str, str, Graph],
) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: installed in ("both", name) or None)
    monkeypatch.setattr(choosing, "openvino_has_bfloat16", lambda: bf16)
    found = choose(graphs, engine, precision)
    assert (found.engine, found.precision, found.graph) == expected


def test_what_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: name == "onnxruntime" or None)
    with pytest.raises(MissingExtra, match=r"needs openvino, .*\[fast\]"):
        choose([FLOAT], "openvino")
    with pytest.raises(UserError, match="bfloat16 needs the engine openvino"):
        choose([FLOAT], "onnxruntime", "bfloat16")
    with pytest.raises(ModelError, match=r"in int8; the bundle has float32 \(onnx\)"):
        choose([FLOAT], precision="int8")
    with pytest.raises(UserError, match="did you mean 'onnxruntime'"):
        choose([FLOAT], "onnxruntim")
    with pytest.raises(UserError, match="precision of a bundle is 'half'"):
        choose([FLOAT], precision="half")
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="openvino or onnxruntime"):
        choose([FLOAT])
