"""What the commands print on standard error is plait's own word: no library's private warning."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# A Python warning or a logger's line; Rust's and C++'s logs; a child that was forked with threads.
FOREIGN = re.compile(
    r"Warning\b|deprecat|WARN|\[transformers\]|experimental|loss_type|os\.fork|rejected|\bE0\d{3}",
    re.IGNORECASE,
)


LOOSE = ("--max-recall-drop", 100, "--threads", 1)


@pytest.fixture
def told(
    plait: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Standard error of a command. The cache is empty: what is found in it warns of nothing."""
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    return lambda *command: plait(*command).err


def test_index_and_search_print_no_foreign_warning(
    told: Callable[..., str], run: Path, pairs: Path, tmp_path: Path
) -> None:
    assert not FOREIGN.search(told("index", run, pairs, "--out", tmp_path / "index"))
    assert not FOREIGN.search(told("search", tmp_path / "index", "a red circle"))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["look", "align", "bundle", "nncf", "onnx"])
def test_commands_print_no_foreign_warning(
    told: Callable[..., str], run: Path, pairs: Path, tmp_path: Path, what: str
) -> None:
    picture, out = next(pairs.rglob("*.jpg")), tmp_path / "out"
    compress = ("compress", run, "--out", out, "--samples", 8, *LOOSE, "--int8", what)
    commands: dict[str, list[tuple[object, ...]]] = {
        "look": [
            ("doctor",),
            ("data", "inspect", pairs),
            ("data", "audit", pairs),
            ("evaluate", run),
            ("classify", run, picture, "--labels", "red,blue"),
            ("embed", run, pairs, "--out", tmp_path / "rows.npz"),
        ],
        "align": [  # pretrained towers, so models of timm and transformers, through OpenVINO
            ("train", "align", "--data", pairs, "--out", out, "--set", "stages.0.epochs=1"),
            ("index", out, pairs, "--out", tmp_path / "index"),
            ("search", tmp_path / "index", "a red circle"),
        ],
        "bundle": [("export", run, "--out", out), ("bench", out, "--seconds", "0.1")],
        "nncf": [compress],
        "onnx": [compress],
    }
    for command in commands[what]:
        found = told(*command)
        assert not FOREIGN.search(found), (command, found)


def test_tracing_a_tower_of_transformers_reads_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing reads every attribute of a model, and one without a head names no loss."""
    from transformers import BertConfig, modeling_utils

    from plait.encoders.hf.weights import load_model, model_from_config

    size = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    config = BertConfig(num_hidden_layers=1, **size)
    warned: list[str] = []
    monkeypatch.setattr(modeling_utils.logger, "warning_once", warned.append)
    model = model_from_config(config.to_dict())
    assert callable(model.loss_function)
    model.save_pretrained(tmp_path)
    assert callable(load_model(tmp_path, "bert").loss_function)
    assert warned == []
