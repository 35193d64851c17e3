"""A tree with a file of every kind: each is read, or named in a note, and the counts add up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.planted import tar_file
from tests.modalities.image.test_forms import png

from plait.data import inspect, open_dataset
from plait.data.audit.audit import audit
from plait.data.base.notes import as_json

# one of each kind, beside what a form itself is made of
OTHERS: dict[str, bytes] = {
    "IMG_1.HEIC": b"x", "b.jxl": b"x", "c.svg": b"<svg/>", "d.ico": b"x", "e.CR2": b"x", "g.psd": b"x",
    "notes.md": b"x", "LICENSE": b"x", "noext": b"x", "doc.pdf": b"x", "Thumbs.db": b"x", "desktop.ini": b"x",
    "IMG_1.AAE": b"x", "cats/red.xmp": b"x", "cats/red.png.json": b'{"title": "red.png"}',
    "lost.txt": b"a text of no picture", "lost.caption": b"x", "empty.txt": b"", "empty.csv": b"",
    "empty.json": b"", "prices.csv": b"name,price\na,1\n", "info.json": b'{"version": 1}',
    "00000_stats.json": b'{"count": 1}', "book.xlsx": b"PK", "old.xls": b"x", "sheet.ods": b"x",
    "a.zip": b"PK", "b.tar.gz": b"x", "c.7z": b"x", "song.mp3": b"x", "clip.mp4": b"x", "array.npy": b"x",
    ".DS_Store": b"x", ".hidden/x.png": b"x", "cats/._red.png": b"x", ".git/config": b"x",
    "@eaDir/red.png/SYNO_THUMB.jpg": b"x", "__MACOSX/cats/x.png": b"x", "$RECYCLE.BIN/y.png": b"x",
    "deep/a/b/c/d.csv": b"image,caption\nx.png,a\n",
}  # fmt: skip


NAMES = ("red", "blue", "1", "2", "3", "4")


def of_table(root: Path) -> set[str]:
    rows = "".join(f"cats/{one}.png,a {one} cat\n" for one in NAMES[:3])
    (root / "pairs.csv").write_text(f"image,caption\n{rows}cats/gone.png,a\ncats/4.png,\n")
    return {"pairs.csv"}


def of_lines(root: Path) -> set[str]:
    (root / "pairs.jsonl").write_text('{"image": "cats/red.png", "text": "a"}\n{"image": 3}\n')
    return {"pairs.jsonl"}


def of_texts(root: Path) -> set[str]:
    for one in NAMES:
        (root / "cats" / f"{one}.txt").write_text(f"a {one} cat")
    (root / "cats" / "red.caption").write_text("tags")
    return {f"cats/{one}.txt" for one in NAMES} | {"cats/red.png.json"}


def of_entries(root: Path) -> set[str]:
    (root / "ann").mkdir()
    for one in NAMES:
        (root / "ann" / f"{one}.json").write_text(f'{{"image": "{one}.png", "caption": "a"}}')
    return {f"ann/{one}.json" for one in NAMES}


def of_parquet(root: Path) -> set[str]:
    table = pa.table({"image": [png("red"), png("blue")], "text": ["a", "b"]})
    pq.write_table(table, root / "pairs.parquet")
    return {"pairs.parquet"}


def of_shards(root: Path) -> set[str]:
    tar_file(root / "a.tar", [("1.png", png("red")), ("1.txt", b"a"), ("2.png", png("blue"))])
    return {"a.tar"}


def of_classes(_: Path) -> set[str]:
    """The pictures in ``cats`` alone."""
    return set()


FORMS = (of_table, of_lines, of_texts, of_entries, of_parquet, of_shards, of_classes)


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__[3:])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, set[str]]:
    """A folder of one form with everything that people keep beside it, and what states the rows."""
    root = tmp_path / "tree"
    for name, data in OTHERS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    for number, one in enumerate(NAMES):
        (root / "cats" / f"{one}.png").write_bytes(
            png("red" if number % 2 else "blue") + one.encode()
        )
    pq.write_table(pa.table({"url": ["http://x"], "key": ["0"]}), root / "list.parquet")
    stating = request.param(root)
    (root / "nothing here").mkdir()
    for link, target in {
        "loop": ".", "linked": "cats", "broken": "nowhere", "broken.png": "nowhere.png", "self.png": "self.png",
        "broken.csv": "nowhere.csv", "link.md": "notes.md",
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    os.mkfifo(root / "pipe.csv")
    return root, stating


def every_file(root: Path) -> set[str]:
    """All names below a folder that are no folders, found another way: links count, none is entered."""
    found, waiting = set(), [root]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                found.add(os.path.relpath(entry.path, root))
    return found


def opened(root: Path, every_picture: bool) -> tuple[list[dict[str, Any]], set[str]]:
    dataset = open_dataset(root, on_bad_row="skip", every_picture=every_picture)
    named = {
        os.path.relpath(sample.image.path, root)
        for sample in dataset
        if sample.image is not None and sample.image.path is not None
    }
    return [as_json(note) for note in dataset.notes], named


FILES = frozenset(
    [
        "undecoded-picture",
        "unnamed-picture",
        "unusable-picture",
        "unread-table",
        "unpaired-text",
        "packed-file",
        "unnamed-file",
        "hidden-file",
        "linked-folder",
        "other-file",
        "textless-picture",
    ]
)  # kinds of notes that count files


@pytest.mark.parametrize("every_picture", [False, True])
def test_every_file_is_read_or_counted(tree: tuple[Path, set[str]], every_picture: bool) -> None:
    root, stating = tree
    notes, named = opened(root, every_picture)
    counted = sum(note["count"] for note in notes if note["kind"] in FILES)
    files = every_file(root)
    assert stating | named <= files
    told = "\n".join(note["message"] for note in notes)
    assert counted + len(named) + len(stating) == len(files), told
    for note in notes:
        assert set(note) == {"kind", "count", "message", "examples"}
        assert note["count"] >= len(note["examples"]) > 0 or note["kind"] == "note"


def test_inspect_and_audit_tell_the_same(tree: tuple[Path, set[str]]) -> None:
    root, _ = tree
    inspected = {
        (note["kind"], note["message"]): note["count"]
        for note in inspect(root)["notes"]
        if note["kind"] in FILES
    }
    report = audit(root).to_json()
    audited = {(note["kind"], note["message"]): note["count"] for note in report["notes"]}
    pictures = {"unnamed-picture", "unusable-picture", "textless-picture"}
    assert {key: count for key, count in audited.items() if key[0] in FILES - pictures} == {
        key: count for key, count in inspected.items() if key[0] not in pictures
    }
    orphans = [one for one in report["findings"] if one["kind"] == "orphan-image"]
    assert len(orphans) >= sum(count for key, count in inspected.items() if key[0] in pictures)


def test_training_and_indexing_tell_them_too(tmp_path: Path) -> None:
    import plait

    root = tmp_path / "tree"
    (root / "cats").mkdir(parents=True)
    rows = ["image,caption,split"]
    for number in range(6):
        for one in ("red", "blue"):
            name = f"cats/{one}{number}.png"
            (root / name).write_bytes(png(one) + bytes([number]))
            rows.append(f"{name},a {one} cat {number},{'test' if number > 3 else 'train'}")
    (root / "pairs.csv").write_text("\n".join(rows))
    for name in ("a.svg", "b.zip", "old.xls", "lost.txt"):
        (root / name).write_bytes(b"x")
    wanted = {note["message"] for note in inspect(root)["notes"] if note["kind"] in FILES}
    assert len(wanted) == 4
    run = tmp_path / "run"
    small = ("stages.0.epochs=1", "stages.0.batch_size=4")
    result = plait.train("scratch", data=root, out=run, overrides=small)
    assert result is not None
    assert wanted <= set(map(str, result["notes"]))
    made = plait.index(run, root, tmp_path / "index")
    assert wanted <= {note["message"] for note in made["notes"]}
    assert made["rows"] == 12
