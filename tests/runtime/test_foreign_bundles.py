"""Bundles that somebody else made: names, sizes and links that lead out are one message."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from plait.core.errors import ModelError, UserError
from plait.runtime import open_bundle
from plait.runtime.external import external_files


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def sealed(copy: Path, change: Callable[[dict[str, Any]], object] = lambda value: None) -> None:
    """Writes the manifest anew, as an attacker would: with hashes that fit."""
    path = copy / "manifest.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    for name in value["files"]:
        value["files"][name] = hashlib.sha256((copy / name).read_bytes()).hexdigest()
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda value: value.update(dim=10**12),
    lambda value: value.update(dim=True),
    lambda value: value.update(scale=float("nan")),
    lambda value: value.update(scale=1e999),
    lambda value: value.update(bias="x"),
    lambda value: value.update(files={"../x": "0"}),
    lambda value: value.update(files={"a": 3}),
    lambda value: value.update(kind={"a": 1}),
    lambda value: value["towers"]["image"]["inputs"]["pixels"].update(shape=[1, 10**12]),
    lambda value: value["towers"]["image"]["inputs"]["pixels"].update(shape="many"),
    lambda value: value["towers"]["image"]["inputs"]["pixels"].update(dtype=3),
    lambda value: value["towers"]["image"].update(output="\ud83d"),
    lambda value: value["towers"]["image"]["graphs"][0].update(file="/etc/passwd"),
    lambda value: value["towers"]["image"]["graphs"][0].update(file=3),
    lambda value: value["towers"]["image"]["graphs"][0].update(parts=["../../x"]),
    lambda value: value["towers"]["image"]["graphs"][0].update(parts="image"),
    lambda value: value["towers"]["image"]["graphs"][0].update(format="x" * 100_000),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_that_lies_is_one_message(
    change: Callable[[dict[str, Any]], object], copy: Path
) -> None:
    sealed(copy, change)
    with pytest.raises(ModelError, match="is damaged") as info:
        open_bundle(copy)
    assert len(str(info.value)) < 600


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 100_000, "9" * 9000, "\x00"])
def test_a_manifest_that_is_none_is_one_message(text: str, copy: Path) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match="is damaged"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "settings", [{"size": [10**6, 10**6]}, {"size": "x"}, {"size": None}, [], {"x" * 9999: 1}]
)
def test_preprocessing_has_sizes(settings: Any, copy: Path) -> None:
    path = copy / "image_preprocess.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | settings if isinstance(settings, dict) else settings))
    sealed(copy)
    with pytest.raises(UserError) as info:
        open_bundle(copy)
    assert len(str(info.value)) < 800


@pytest.mark.parametrize("text", ["[" * 1_000_000, "{}", '{"model": {"vocab": {"\\ud83d": 0}}}'])
def test_tokenizers_are_one_message(text: str, copy: Path) -> None:
    (copy / "tokenizer.json").write_text(text)
    sealed(copy)
    with pytest.raises(ModelError, match="tokenizer"):
        open_bundle(copy).embed(texts=["a"])


@pytest.mark.parametrize("settings", ["[]", '{"max_length": 1000000000000}', "[" * 100_000])
def test_text_settings_are_one_message(settings: str, copy: Path) -> None:
    (copy / "text_preprocess.json").write_text(settings)
    sealed(copy)
    with pytest.raises(ModelError, match="text_preprocess"):
        open_bundle(copy).embed(texts=["a"])


def test_a_link_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "text.onnx", tmp_path / "elsewhere.onnx")
    (copy / "text.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ModelError, match="leads out of the bundle"):
        open_bundle(copy).embed(texts=["a"])


@pytest.mark.parametrize("place", ["/etc/passwd", "../secret.bin", "unlisted.bin"])
def test_weights_elsewhere_are_refused(place: str, copy: Path) -> None:
    path = copy / "text.onnx"
    model = onnx.load(str(path))
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    path.write_bytes(model.SerializeToString())
    assert external_files(path) == {place}
    sealed(copy)
    with pytest.raises(ModelError, match="takes weights from"):
        open_bundle(copy).embed(texts=["a"])


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x7f", b"\x3a\x00" * 9])
def test_what_is_no_graph_is_told(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(data)
    if data == b"\x3a\x00" * 9:
        assert external_files(tmp_path / "a.onnx") == set()
        return
    with pytest.raises(ModelError):
        external_files(tmp_path / "a.onnx")


def test_a_pipe_is_no_manifest(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    os.mkfifo(copy / "manifest.json")
    with pytest.raises(ModelError):
        open_bundle(copy)
