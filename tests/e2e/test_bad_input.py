"""Planted faults: each is named exactly, with exit code 2 and no traceback."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def copy(pairs: Path, tmp_path: Path) -> Path:
    """The pairs in a folder of the test's own, to break."""
    folder = tmp_path / "pairs"
    shutil.copytree(pairs, folder)
    return folder


def rewrite(folder: Path, change: Callable[[list[dict]], None]) -> None:
    file = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    change(rows)
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")


def huge_png(path: Path, side: int = 30_000) -> None:
    """A valid PNG of side x side black pixels, some 900 MB once decoded, a few kB on disk."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def train(plait: Callable, folder: Path, *more: str, code: int = 2) -> str:
    out = folder.parent / "run"
    return plait(
        "train",
        "scratch",
        "--data",
        folder,
        "--out",
        out,
        "--set",
        "stages.0.epochs=1",
        *more,
        code=code,
    ).err


def test_corrupt_jpeg(plait: Callable, copy: Path) -> None:
    picture = copy / "images/photo_003.jpg"
    picture.write_bytes(picture.read_bytes()[:200] + b"garbage")
    assert "photo_003.jpg" in train(plait, copy)
    findings = plait("data", "audit", copy, "--json", code=2).json["findings"]
    assert any(f["kind"] == "unreadable" and "photo_003" in str(f) for f in findings)


def test_missing_file(plait: Callable, copy: Path) -> None:
    (copy / "images/photo_004.jpg").unlink()
    message = train(plait, copy)
    assert "photo_004.jpg" in message
    assert "row 5" in message


def test_empty_caption(plait: Callable, copy: Path) -> None:
    rewrite(copy, lambda rows: rows[6].update(text=["a cat", "  "]))
    message = train(plait, copy)
    assert "metadata.jsonl" in message
    assert "row 7" in message
    assert "empty" in message


def test_a_skipped_bad_row_is_counted(plait: Callable, copy: Path, tmp_path: Path) -> None:
    (copy / "images/photo_004.jpg").unlink()
    arguments = ("--data", copy, "--out", tmp_path / "run", "--on-bad-row", "skip", "--json")
    found = plait("train", "scratch", *arguments, "--set", "stages.0.epochs=1").json
    assert found["skipped"] == 1


def test_duplicate_across_splits(plait: Callable, copy: Path) -> None:
    def change(rows: list[dict]) -> None:
        for place, row in enumerate(rows):
            row["split"] = "test" if place % 10 == 0 else "train"

    rewrite(copy, change)
    shutil.copyfile(copy / "images/photo_001.jpg", copy / "images/photo_010.jpg")
    findings = plait("data", "audit", copy, "--json", code=None).json["findings"]
    leaks = [f for f in findings if "leak" in f["kind"]]
    assert any("photo_001" in str(f) and "photo_010" in str(f) for f in leaks)


def test_size_bomb(plait: Callable, copy: Path) -> None:
    huge_png(copy / "images/bomb.png")
    rewrite(copy, lambda rows: rows.append({"file_name": "images/bomb.png", "text": "a bomb"}))
    message = train(plait, copy)
    assert "bomb.png" in message
    assert "30000" in message.replace(",", "").replace(" ", "")


def test_bad_utf8(plait: Callable, copy: Path) -> None:
    file = copy / "metadata.jsonl"
    lines = file.read_bytes().split(b"\n")
    lines[8] = lines[8].replace(b"a ", b"\xff\xfe ", 1)
    file.write_bytes(b"\n".join(lines))
    message = train(plait, copy)
    assert "metadata.jsonl" in message
    assert "row 9" in message
    assert "UTF-8" in message


def test_swapped_pairs_are_suspected(plait: Callable, pairs: Path, tmp_path: Path) -> None:
    """A model trained on good pairs points at pictures whose texts were exchanged."""
    run = tmp_path / "run"
    plait("train", "align", "--data", pairs, "--out", run)
    folder = tmp_path / "swapped"
    shutil.copytree(pairs, folder)

    def change(rows: list[dict]) -> None:
        rows[0]["text"], rows[18]["text"] = rows[18]["text"], rows[0]["text"]

    rewrite(folder, change)
    report = plait("data", "audit", folder, "--model", run, "--json", code=None).json
    suspects = [f for f in report["findings"] if f["kind"] == "mismatch"]
    named = " ".join(str(f) for f in suspects)
    assert "photo_000" in named
    assert "photo_018" in named
    assert len(suspects) <= 12


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("stages.0.epoch=3", ("stages.0.epoch", "epochs")),
        ("stages.0.epochs=many", ("stages.0.epochs", "integer")),
        ("model.towers.image.encoder=scratch/vit-tinny", ("scratch/vit-tinny", "'vit-tiny'")),
    ],
)
def test_recipe_faults(
    plait: Callable, pairs: Path, tmp_path: Path, setting: str, words: tuple
) -> None:
    arguments = ("train", "scratch", "--data", pairs, "--out", tmp_path / "run", "--set", setting)
    message = plait(*arguments, code=2).err
    for word in words:
        assert word in message


def test_unknown_recipe_and_path(plait: Callable, pairs: Path, tmp_path: Path) -> None:
    assert "align" in plait("train", "aling", "--data", pairs, code=2).err
    gone = tmp_path / "nowhere"
    assert "nowhere" in plait("train", "align", "--data", gone, code=2).err


def test_errors_as_json(plait: Callable, tmp_path: Path) -> None:
    found = plait("data", "inspect", tmp_path / "nowhere", "--json", code=2).json
    assert "nowhere" in found["error"]["message"]


def test_a_finished_run_is_not_overwritten(plait: Callable, run: Path, pairs: Path) -> None:
    before = (run / "model.safetensors").stat().st_mtime_ns
    assert str(run) in plait("train", "scratch", "--data", pairs, "--out", run, code=2).err
    assert (run / "model.safetensors").stat().st_mtime_ns == before
