"""Indexes from strangers: whose pictures are shown, and what a folder may hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.retrieval.conftest import noise

from plait.core.errors import SearchIndexError
from plait.retrieval import Index, build_index, open_index
from plait.retrieval.index.manifest import Manifest, read_manifest
from plait.retrieval.index.roots import KEY
from plait.retrieval.index.rows import remove_thumbnails
from plait.retrieval.sheet.sheet import contact_sheet
from plait.retrieval.store.lance import LanceStore, UnreadableIndex, _to_arrow
from plait.retrieval.store.store import Row

DIM = 4
VECTOR = np.array([1, 0, 0, 0], np.float32)


def foreign(folder: Path, *paths: str, **manifest) -> Index:
    """An index that somebody wrote by hand."""
    rows = [Row(f"r{i}", VECTOR, path=path) for i, path in enumerate(paths)]
    LanceStore(folder, DIM, create=True).upsert(rows)
    Manifest(dim=DIM, model="m", modalities=("image",), **manifest).save(folder)
    return open_index(folder)


def outside(index: Index) -> list[bool]:
    return [hit["outside"] for hit in index.search(VECTOR)]


def test_own_pictures_are_inside_and_a_seal_proves_it(
    model, dataset, tmp_path, monkeypatch
) -> None:
    build_index(model, dataset, tmp_path / "index")
    vector = model.embed(texts=["a"])["text"][0]
    hits = open_index(tmp_path / "index").search(vector)
    assert len(hits) == 10 and not any(hit["outside"] for hit in hits)
    manifest = read_manifest(tmp_path / "index")
    assert manifest.own_roots == (str(tmp_path / "pictures"),)
    # What was signed was these folders and no others.
    Manifest(
        dim=manifest.dim,
        model=manifest.model,
        modalities=manifest.modalities,
        roots=("/",),
        seal=manifest.seal,
    ).save(tmp_path / "index")
    assert sum(hit["outside"] for hit in open_index(tmp_path / "index").search(vector)) == 8
    manifest.save(tmp_path / "index")
    key = tmp_path / "cache" / KEY
    assert key.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "another user"))
    assert sum(hit["outside"] for hit in open_index(tmp_path / "index").search(vector)) == 8


def test_a_stranger_states_no_roots(tmp_path: Path) -> None:
    secret = tmp_path / "private" / "scan.png"
    secret.parent.mkdir()
    noise(0).save(secret)
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "link.png").symlink_to(secret)
    noise(1).save(folder / "own.png")
    paths = ["../private/scan.png", str(secret), "link.png", "own.png", "/proc/self/root/etc/x.png"]
    paths += [f"{folder}/../private/scan.png", f"{folder}er/x.png"]
    index = foreign(folder, *paths, roots=("/", str(secret.parent)), seal="0" * 64)
    assert outside(index) == [True, True, True, False, True, True, True]
    stated = open_index(folder, roots=[secret.parent])
    assert outside(stated) == [False, False, False, False, True, False, True]
    assert not any(outside(open_index(folder, allow_outside=True)))
    with pytest.raises(SearchIndexError, match="no folder"):
        open_index(folder, roots=[tmp_path / "nowhere"])


def test_adding_own_pictures_does_not_bless_the_stranger(model, dataset, tmp_path: Path) -> None:
    build_index(model, dataset, tmp_path / "index")
    manifest = read_manifest(tmp_path / "index")
    Manifest(
        dim=manifest.dim, model=manifest.model, modalities=("image",), roots=("/etc",), seal="x"
    ).save(tmp_path / "index")
    open_index(tmp_path / "index").add(model, dataset)
    assert read_manifest(tmp_path / "index").own_roots == (str(tmp_path / "pictures"),)


def test_a_sheet_draws_nothing_from_outside_and_waits_for_no_pipe(tmp_path: Path) -> None:
    red = tmp_path / "red.png"
    Image.new("RGB", (50, 50), (255, 0, 0)).save(red)
    folder = tmp_path / "index"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    index = foreign(folder, str(red), "pipe.png")
    sheet = contact_sheet([("q", index.search(VECTOR))], tmp_path / "sheet.png")
    assert not is_red(sheet)
    index = open_index(folder, allow_outside=True)
    assert is_red(contact_sheet([("q", index.search(VECTOR))], tmp_path / "sheet.png"))


def is_red(path: Path) -> bool:
    pixels = np.asarray(Image.open(path)).astype(int)
    return bool(((pixels[..., 0] > 240) & (pixels[..., 1:].max(axis=-1) < 20)).any())


def test_deleting_rows_deletes_thumbnails_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    (folder / "thumbnails" / "ab").mkdir(parents=True)
    kept = tmp_path / "kept.jpg"
    kept.write_bytes(b"x")
    own = folder / "thumbnails" / "ab" / "ab.jpg"
    own.write_bytes(b"x")
    paths = ["thumbnails/../../kept.jpg", "thumbnails/..", "thumbnails/ab/ab.jpg"]
    remove_thumbnails([Row("a", VECTOR, path=path) for path in paths], folder)
    assert kept.exists() and not own.exists()


GOOD = {"dim": 4, "model": "m", "columns": [], "modalities": ["image"]}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps([1]),
        *(
            json.dumps({"format": "plait-index", "version": 3, **GOOD, **changed})
            for changed in (
                {"dim": 10**12},
                {"dim": 0},
                {"dim": "4"},
                {"dim": True},
                {"dim": 4.0},
                {"columns": "abc"},
                {"columns": [1]},
                {"columns": None},
                {"modalities": ["sound"]},
                {"model": None},
                {"run": 5},
                {"roots": ["/", 1]},
                {"seal": 1},
                {"corrected": "yes"},
                {"unknown": 1},
                {"format": ["x" * 100_000]},
            )
        ),
        '{"format": "plait-index", "version": ' + "9" * 10_000 + "}",
    ],
    ids=lambda text: text[:12] + text[-30:],
)
def test_damaged_manifests_are_told_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SearchIndexError) as refused:
        open_index(tmp_path)
    assert len(str(refused.value)) < 500


def test_a_manifest_is_a_regular_file_of_a_few_megabytes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(SearchIndexError, match="named pipe"):
        open_index(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SearchIndexError, match="bytes"):
        open_index(tmp_path)


def test_other_tables_and_damaged_rows(tmp_path: Path) -> None:
    import lancedb

    index = foreign(tmp_path, None)
    Manifest(dim=DIM + 1, model="m", modalities=("image",)).save(tmp_path)
    with pytest.raises(SearchIndexError, match="4 features, not 5"):
        open_index(tmp_path)
    Manifest(dim=DIM, model="m", modalities=("image",)).save(tmp_path)
    assert len(index.search(VECTOR, k=10**30)) == 1
    for metadata in ("[" * 5000, "[1]", "{", '{"a": "' + "x" * 2_000_000 + '"}', None):
        table = _to_arrow([Row("a", VECTOR)], DIM)
        place = table.schema.get_field_index("metadata")
        table = table.set_column(place, "metadata", [[metadata]])
        lancedb.connect(str(tmp_path)).create_table("rows", table, mode="overwrite")
        with pytest.raises(UnreadableIndex) as refused:
            open_index(tmp_path).search(VECTOR)
        assert len(str(refused.value)) < 600
    lancedb.connect(str(tmp_path)).create_table("rows", [{"vector": [1.0] * DIM}], mode="overwrite")
    with pytest.raises(UnreadableIndex, match="without the column"):
        open_index(tmp_path)
