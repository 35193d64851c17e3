"""Run folders that somebody else made: whatever model.json says wrongly is one message."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plait.core.errors import UserError
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.storage import load_model, save_model


@pytest.fixture
def saved(model: AlignmentModel, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "run")
    return tmp_path / "run"


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as info:
        load_model(folder)
    assert len(str(info.value)) < 1500
    return str(info.value)


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda spec: spec.update(towers=3),
    lambda spec: spec.update(towers=[]),
    lambda spec: spec.update(towers={"image": None}),
    lambda spec: spec.update(towers={"../../x": spec["towers"]["image"]}),
    lambda spec: spec.update(version="9"),
    lambda spec: spec.update(kind=["alignment"]),
    lambda spec: spec.update(max_scale=1e999),
    lambda spec: spec.update(max_scale=float("nan")),
    lambda spec: spec.update(max_scale="many"),
    lambda spec: spec.update(shared_layers=10**12),
    lambda spec: spec.update(hubs={"strength": "x"}),
    lambda spec: spec["towers"]["image"].update(projection={"kind": "eval"}),
    lambda spec: spec["towers"]["image"].update(projection={}),
    lambda spec: spec["towers"]["image"]["encoder"].update(family="../x"),
    lambda spec: spec["towers"]["text"]["projection"].update(out_width=9_000_000),
    lambda spec: spec["towers"]["text"]["projection"].update(width=10**12),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_description_that_lies_is_one_message(
    change: Callable[[dict[str, Any]], object], saved: Path
) -> None:
    path = saved / "model.json"
    spec = json.loads(path.read_text())
    change(spec)
    path.write_text(json.dumps(spec))
    refused(saved)


@pytest.mark.parametrize(
    "text",
    ["[" * 2_000_000, '{"a":' * 200_000, "9" * 10_000, "[]", "3", "\x00", '{"format": 1'],
)
def test_a_description_that_is_none_is_one_message(text: str, saved: Path) -> None:
    (saved / "model.json").write_text(text)
    refused(saved)


def test_files_that_are_none_never_block(saved: Path) -> None:
    for name in ("model.json", "model.safetensors"):
        shutil.move(saved / name, saved / "kept")
        os.mkfifo(saved / name)
        assert "is a named pipe" in refused(saved)
        (saved / name).unlink()
        with (saved / name).open("wb") as file:
            file.truncate(1 << 40)
        refused(saved)
        shutil.move(saved / "kept", saved / name)
    load_model(saved)


@pytest.mark.parametrize("stated", [1 << 62, 99 << 20, 17 << 20])
def test_a_header_of_weights_has_a_length(stated: int, saved: Path) -> None:
    with (saved / "model.safetensors").open("wb") as file:
        file.write(stated.to_bytes(8, "little") + b'{"a":')
        file.truncate(120 << 20)
    assert "states a header" in refused(saved)
