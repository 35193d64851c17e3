"""An index that follows its folder: what is embedded again, what is kept, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.retrieval.conftest import make_model, noise

from plait.core.errors import SearchIndexError, UserError
from plait.core.lock import FolderLock
from plait.data import open_dataset
from plait.data.base.dataset import PairDataset
from plait.models.store.storage import load_model, save_model
from plait.retrieval import build_index, open_index, sync_index
from plait.retrieval.index import writing
from plait.retrieval.index.kept import keep_tower, tower_place
from plait.retrieval.index.state import Journal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures."""
    made = tmp_path / "photos"
    made.mkdir()
    for number in range(7):
        noise(number).save(made / f"{number}.png")
    return made


def opened(folder: Path) -> PairDataset:
    return open_dataset(folder, every_picture=True)


def vectors(index: Path) -> dict[str, np.ndarray]:
    return {row.id: row.vector for row in open_index(index).store.rows()}


def counts(model, folder: Path, out: Path, **options) -> tuple[int, ...]:
    done = sync_index(model, opened(folder), out, engine="torch", cache=False, **options)
    assert done.rows == len(open_index(out)) == len(list(folder.rglob("*.png")))
    return done.added, done.changed, done.moved, done.deleted, done.unchanged


def test_an_index_follows_its_folder(model, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "index"
    (folder / "sub").mkdir(parents=True)
    for number in range(5):
        noise(number).save(folder / f"{number}.png")

    def sync() -> tuple[int, ...]:
        data = open_dataset(folder, every_picture=True)
        done = sync_index(model, data, out, engine="torch", cache=False)
        return done.added, done.changed, done.moved, done.deleted, done.unchanged

    assert sync() == (5, 0, 0, 0, 0)
    assert sync() == (0, 0, 0, 0, 5)
    before = {row.path: row.vector for row in open_index(out).store.rows()}
    (folder / "0.png").unlink()
    (folder / "1.png").rename(folder / "sub" / "new name.png")
    noise(12).save(folder / "2.png")
    noise(13).save(folder / "9.png")
    (folder / "3.png").touch()  # another time, the same bytes
    assert sync() == (1, 1, 1, 1, 2)
    rows = {row.path: row for row in open_index(out).store.rows()}
    assert sorted(rows) == sorted(str(path.resolve()) for path in folder.rglob("*.png"))
    moved = rows[str((folder / "sub" / "new name.png").resolve())]
    assert moved.id == "photos/sub/new name.png"
    np.testing.assert_array_equal(moved.vector, before[str((folder / "1.png").resolve())])
    assert open_index(out, model=model).search(noise(12), k=1)[0]["id"] == "photos/2.png"
    assert sync() == (0, 0, 0, 0, 5)


def test_a_folder_that_lost_everything_is_refused(model, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "index"
    folder.mkdir()
    for number in range(22):
        noise(number).save(folder / f"{number}.png")

    def sync(data: PairDataset, **options) -> tuple[int, ...]:
        done = sync_index(model, data, out, engine="torch", cache=False, **options)
        return done.added, done.changed, done.moved, done.deleted, done.unchanged

    sync(open_dataset(folder, every_picture=True))
    other = tmp_path / "other"
    other.mkdir()
    noise(99).save(other / "1.png")
    for data in (PairDataset([], "images", folder), open_dataset(other, every_picture=True)):
        with pytest.raises(SearchIndexError, match=r"any of the 22 pictures.*--allow-empty"):
            sync(data)
        assert len(open_index(out)) == 22
    assert sync(open_dataset(other, every_picture=True), allow_empty=True) == (1, 0, 0, 22, 0)
    with pytest.raises(SearchIndexError, match="the picture of the index"):
        sync(PairDataset([], "images", other))
    assert sync(PairDataset([], "images", other), allow_empty=True) == (0, 0, 0, 1, 0)


KILLED = """
import os, sys
from pathlib import Path
from plait.data import open_dataset
from plait.models.store.storage import load_model
from plait.retrieval.index import building, index, syncing, writing
index.BLOCK = writing.BLOCK = 2
left = int(sys.argv[4])
put = index.Index.put
def killed(self, rows, dataset):
    global left
    left -= 1
    if left < 0 and sys.argv[5] == "before":
        os.kill(os.getpid(), 9)
    put(self, rows, dataset)
    if left < 0:
        os.kill(os.getpid(), 9)
index.Index.put = killed
run, data, out = map(Path, sys.argv[1:4])
data = open_dataset(data, every_picture=True)
building.sync_index(load_model(run), data, out, run=run, engine="torch", cache=False)
"""


@pytest.mark.parametrize(("blocks", "when"), [(0, "before"), (1, "after"), (2, "before")])
def test_what_a_kill_leaves_is_gone_on_with(
    model, folder: Path, tmp_path: Path, monkeypatch, blocks: int, when: str
) -> None:
    save_model(model, tmp_path / "run")
    words = [str(tmp_path / name) for name in ("run", "photos", "index")]
    done = subprocess.run([sys.executable, "-c", KILLED, *words, str(blocks), when], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "index").exists() and (tmp_path / ".index.unfinished").is_dir()
    embedded = []
    by_model = writing.Writer._by_model

    def counted(self, part, title):
        embedded.extend(part.ids)
        return by_model(self, part, title)

    monkeypatch.setattr(writing.Writer, "_by_model", counted)
    model = load_model(tmp_path / "run")
    build_index(model, opened(folder), tmp_path / "index", engine="torch", cache=False)
    # A block whose rows are in, but not in the journal, is embedded again.
    assert len(embedded) == 7 - 2 * blocks
    assert not (tmp_path / ".index.unfinished").exists()
    build_index(model, opened(folder), tmp_path / "unbroken", engine="torch", cache=False)
    broken, unbroken = vectors(tmp_path / "index"), vectors(tmp_path / "unbroken")
    assert broken.keys() == unbroken.keys() and len(broken) == 7
    for id, vector in broken.items():
        np.testing.assert_allclose(vector, unbroken[id], atol=1e-6)
    assert counts(model, folder, tmp_path / "index") == (0, 0, 0, 0, 7)


@pytest.mark.parametrize(("blocks", "when"), [(0, "after"), (1, "before"), (1, "after")])
def test_a_killed_sync_is_gone_on_with(
    model, folder: Path, tmp_path: Path, blocks: int, when: str
) -> None:
    save_model(model, tmp_path / "run")
    assert counts(model, folder, tmp_path / "index", run=tmp_path / "run") == (7, 0, 0, 0, 0)
    (folder / "0.png").unlink()
    (folder / "1.png").rename(folder / "moved.png")
    for number in (2, 10, 11):  # one changed, two new
        noise(number + 20).save(folder / f"{number}.png")
    words = [str(tmp_path / name) for name in ("run", "photos", "index")]
    done = subprocess.run([sys.executable, "-c", KILLED, *words, str(blocks), when], check=False)
    assert done.returncode == -9
    model = load_model(tmp_path / "run")
    counts(model, folder, tmp_path / "index")
    build_index(model, opened(folder), tmp_path / "unbroken", engine="torch", cache=False)
    found, unbroken = vectors(tmp_path / "index"), vectors(tmp_path / "unbroken")
    assert found.keys() == unbroken.keys() and len(found) == 8
    for id, vector in found.items():
        np.testing.assert_allclose(vector, unbroken[id], atol=1e-6)
    assert counts(model, folder, tmp_path / "index") == (0, 0, 0, 0, 8)


def test_an_unfinished_index_of_another_model_is_of_no_use(
    model, other_model, folder: Path, tmp_path: Path
) -> None:
    build_index(other_model, opened(folder), tmp_path / ".index.unfinished", engine="torch")
    (tmp_path / ".index.unfinished" / "thumbnails").mkdir()
    build_index(model, opened(folder), tmp_path / "index", engine="torch", cache=False)
    build_index(model, opened(folder), tmp_path / "unbroken", engine="torch", cache=False)
    unbroken = vectors(tmp_path / "unbroken")
    for id, vector in vectors(tmp_path / "index").items():
        np.testing.assert_array_equal(vector, unbroken[id])
    assert not (tmp_path / "index" / "thumbnails").exists()


def test_one_process_at_a_time(model, folder: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / ".index.unfinished"
    unfinished.mkdir()
    with FolderLock(unfinished), pytest.raises(UserError, match="another process is making"):
        build_index(model, opened(folder), tmp_path / "index", engine="torch")
    assert unfinished.is_dir()  # it is the other's
    build_index(model, opened(folder), tmp_path / "index", engine="torch")
    with FolderLock(tmp_path / "index"):
        for change in (sync_index, lambda *of: build_index(*of, add=True)):
            with pytest.raises(UserError, match="another process is changing"):
                change(model, opened(folder), tmp_path / "index")


def test_a_folder_that_moved_as_a_whole_keeps_its_vectors(
    model, folder: Path, tmp_path: Path
) -> None:
    shutil.copyfile(folder / "0.png", folder / "copy.png")  # two of the same content
    index = tmp_path / "index"
    assert counts(model, folder, index) == (8, 0, 0, 0, 0)
    before = vectors(index)
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    assert counts(model, elsewhere, index) == (0, 0, 8, 0, 0)
    after = vectors(index)
    assert set(after) == {f"elsewhere/{path.name}" for path in elsewhere.iterdir()}
    for id, vector in after.items():
        np.testing.assert_array_equal(vector, before[id.replace("elsewhere", "photos")])
    (tmp_path / "deeper").mkdir()
    elsewhere.rename(tmp_path / "deeper" / "elsewhere")  # the ids are the same, the paths are not
    assert counts(model, tmp_path / "deeper" / "elsewhere", index) == (0, 0, 8, 0, 0)
    assert {row.path for row in open_index(index).store.rows()} == {
        str(path.resolve()) for path in (tmp_path / "deeper" / "elsewhere").iterdir()
    }


def test_another_split_is_no_other_picture(model, folder: Path, tmp_path: Path) -> None:
    data = opened(folder)
    assert sync_index(model, data, tmp_path / "index", engine="torch").added == 7
    others = ["test" if split == "train" else "train" for split in data.splits]
    again = PairDataset(data.samples, data.format, data.root, assigned=others)
    done = sync_index(model, again, tmp_path / "index", engine="torch")
    assert (done.changed, done.unchanged) == (0, 7)
    split = {row.id: row.metadata["split"] for row in open_index(tmp_path / "index").store.rows()}
    assert [split[f"photos/{sample.id}.png"] for sample in data] == others


def test_texts_of_an_index_with_texts_are_made_anew(model, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    data = opened(folder)
    told = [replace(sample, texts=(f"words {sample.id}",)) for sample in data]
    build_index(
        model,
        PairDataset(told, "test", folder),
        index,
        texts=True,
        engine="torch",
        precision="float32",
    )
    told[0] = replace(told[0], texts=("other words", "more"))
    done = sync_index(
        model, PairDataset(told, "test", folder), index, engine="torch", precision="float32"
    )
    assert (done.added, done.changed, done.unchanged, done.rows) == (0, 1, 6, 15)
    found = [
        row for row in open_index(index).store.rows(["photos/0.png"]) if row.modality == "text"
    ]
    assert [row.texts for row in found] == [("other words",), ("more",)]
    expected = model.embed(texts=["other words", "more"])["text"]
    np.testing.assert_allclose([row.vector for row in found], expected, atol=1e-5)


def test_few_new_pictures_need_no_model(folder: Path, tmp_path: Path) -> None:
    model, run, index = make_model(), tmp_path / "run", tmp_path / "index"
    save_model(model, run)
    build_index(model, opened(folder), index, run=run, engine="torch")
    assert keep_tower(model, "image", tower_place(open_index(index).manifest, run, "image"))
    noise(50).save(folder / "new.png")
    (folder / "bad.png").write_bytes(b"no picture")
    words = [str(folder), str(index), str(run)]
    code = """
import json, sys
from pathlib import Path
from plait.data import open_dataset
from plait.retrieval import sync_index
def load():
    raise AssertionError("the model was loaded")
folder, index, run = sys.argv[1:]
for _ in range(2):
    data = open_dataset(folder, every_picture=True)
    done = sync_index(None, data, index, run=run, load=load, on_bad_row="skip")
    print(json.dumps([done.added, done.unchanged, len(done.skipped), done.rows]))
assert not {"torch", "transformers"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[1, 7, 1, 8], [0, 8, 1, 8]]
    expected = model.embed(images=[folder / "new.png"])["image"][0]
    np.testing.assert_allclose(vectors(index)["photos/new.png"], expected, atol=2e-3)


def test_another_model_is_refused_before_anything_is_embedded(
    model, other_model, folder: Path, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "run")
    save_model(other_model, tmp_path / "other")
    build_index(model, opened(folder), tmp_path / "index", run=tmp_path / "run", engine="torch")
    other = tmp_path / "other"
    with pytest.raises(SearchIndexError, match="fingerprint"):
        sync_index(
            None, opened(folder), tmp_path / "index", run=other, load=lambda: load_model(other)
        )


def test_the_journal_tells_the_table_until_something_else_changes_it(
    model, folder: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build_index(model, opened(folder), index, engine="torch")
    states, in_step = Journal(index).read()
    assert in_step and Journal(index).in_step() and states.keys() == vectors(index).keys()
    with (index / "files.jsonl").open("a") as file:
        file.write('["+", "half a li')  # killed while it wrote
    assert Journal(index).read()[0] == states and not Journal(index).in_step()
    Journal(index).write({}, whole=True)
    assert Journal(index).read() == (states, True) and Journal(index).in_step()
    assert open_index(index).delete(["photos/3.png"]) == 1
    assert not Journal(index).read()[1] and not Journal(index).in_step()
    assert counts(model, folder, index) == (1, 0, 0, 0, 6)
    for damaged in ("[1]", "1", "[" * 9000, '["-", []]', '["+", "a", 5, 1, 1, "", "", ""]'):
        (index / "files.jsonl").write_text(f"{damaged}\n")
        assert Journal(index).read() == ({}, False)
    assert counts(model, folder, index) == (0, 7, 0, 0, 0)
    assert counts(model, folder, index) == (0, 0, 0, 0, 7)


def test_the_journal_does_not_grow_for_ever(
    model, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("plait.retrieval.index.state._SPARE", 3)
    index = tmp_path / "index"
    for number in range(12):
        os.utime(folder / "1.png", (number, number))
        counts(model, folder, index)
    assert len((index / "files.jsonl").read_text().splitlines()) <= 2 * 7 + 3 + 1


def test_an_index_in_memory_is_not_changed(model, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    counts(model, folder, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    noise(30).save(folder / "new.png")
    memory = open_index(out, model=model, in_memory=True)
    options = {"engine": "torch", "cache": False}
    for change in (
        lambda: memory.add(model, opened(folder), **options),
        lambda: memory.sync(model, opened(folder), **options),
        lambda: memory.delete(["photos/0.png"]),
    ):
        with pytest.raises(SearchIndexError, match="open it without in_memory"):
            change()
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    assert counts(model, folder, out) == (1, 0, 0, 0, 7)


def test_an_index_that_was_opened_before_another_changed_it(
    model, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    counts(model, folder, out)
    early = open_index(out, model=model)
    assert len(early) == 7
    noise(30).save(folder / "new.png")
    assert counts(model, folder, out) == (1, 0, 0, 0, 7)
    done = early.sync(model, opened(folder), engine="torch", cache=False)
    assert (done.added, done.unchanged, done.rows) == (0, 8, 8)
    with FolderLock(out), pytest.raises(UserError, match="another process is changing"):
        early.delete(["photos/0.png"])
    told = replace(opened(folder)[0], texts=("told",), meta={"shelf": "a"})
    words = PairDataset([told], "test", folder)
    open_index(out).add(model, words, texts=True, engine="torch", cache=False)
    assert early.delete(["photos/new.png"]) == 1  # a row that came after it was opened
    further = PairDataset([replace(told, meta={"room": "b"})], "test", folder)
    early.add(model, further, engine="torch", cache=False)
    manifest = open_index(out).manifest  # still with what the other one had brought
    assert {"shelf", "room"} <= set(manifest.columns) and set(manifest.modalities) == {
        "image",
        "text",
    }


@pytest.mark.parametrize("resumed", [False, True])
def test_texts_without_a_picture_stay(model, dataset, tmp_path: Path, resumed: bool) -> None:
    words = [*dataset, replace(dataset[0], id="words", image=None, texts=("words alone",))]
    data = PairDataset(words, "made", dataset.root, assigned=[*dataset.splits, "train"])
    out = tmp_path / "index"
    build_index(model, data, out, texts=True, engine="torch", cache=False)
    rows = len(open_index(out))
    if resumed:
        assert open_index(out).delete(["words"]) == 1  # killed before that row was written
        shutil.move(out, tmp_path / ".index.unfinished")
        build_index(model, data, out, texts=True, engine="torch", cache=False)
    else:
        done = sync_index(model, data, out, engine="torch", cache=False)
        assert (done.deleted, done.rows, list(done.skipped)) == (0, rows, [])
    assert len(open_index(out)) == rows
    assert any("words alone" in row.texts for row in open_index(out).store.rows())


def test_a_folder_that_cannot_be_read_is_not_gone(model, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    for number in range(7, 22):
        noise(number).save(folder / f"{number}.png")
    counts(model, folder, out)
    data = opened(folder)
    shutil.rmtree(folder)
    with pytest.raises(SearchIndexError, match="any of the 22 pictures"):
        sync_index(model, data, out, engine="torch", cache=False, on_bad_row="skip")
    assert len(open_index(out)) == 22
