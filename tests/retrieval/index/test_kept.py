"""What a search keeps in the cache: the same hits as by the long way, and never stale ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.retrieval.conftest import make_model, noise

from plait.core.errors import SearchIndexError
from plait.models.store.storage import save_model
from plait.retrieval import build_index, open_index
from plait.retrieval.index import kept
from plait.retrieval.store.lance import LanceStore
from plait.retrieval.store.store import Row


@pytest.fixture
def index(model, dataset, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "run")
    build_index(
        model, dataset, tmp_path / "index", run=tmp_path / "run", texts=True, engine="torch"
    )
    return tmp_path / "index"


def places(tmp_path: Path) -> set[Path]:
    return set((tmp_path / "cache" / "search").glob("*"))


QUERIES = [
    {"query": "picture 3", "k": 4},
    {"query": "第1张图片", "k": 3, "where": "year >= 2003 AND split = 'test'"},
    {"query": "picture 3", "k": 5, "find": "text", "where": "text LIKE '%图片%'"},
    {"query": "picture 3", "k": 100, "find": "any"},
    {"query": noise(5), "k": 2},
]


def test_the_same_hits_as_by_the_long_way(index: Path) -> None:
    for asked in QUERIES:
        long = open_index(index).search(**asked)
        for _ in range(2):  # the first keeps, the second finds
            short = open_index(index, kept=True).search(**asked)
            assert [hit["id"] for hit in short] == [hit["id"] for hit in long]
            for one, other in zip(short, long, strict=True):
                assert one.pop("score") == pytest.approx(other["score"], abs=2e-3)
                assert one == {name: value for name, value in other.items() if name != "score"}


def test_a_second_search_loads_neither_model_nor_database(index: Path) -> None:
    open_index(index, kept=True).search("picture 3")
    code = """
import sys
from plait.retrieval import open_index
index = open_index(sys.argv[1], kept=True)
hits = index.search("picture 3", k=1)
assert index.note("picture 3") is None
heavy = {"torch", "transformers", "lancedb", "pyarrow", "pandas"} & set(sys.modules)
assert not heavy, heavy
print(hits[0]["id"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(index)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == open_index(index).search("picture 3", k=1)[0]["id"]


def test_rows_that_go_are_found_no_longer(index: Path) -> None:
    first = open_index(index, kept=True).search("picture 3", k=1)[0]["id"]
    assert open_index(index).delete([first]) == 1
    hits = open_index(index, kept=True).search("picture 3", k=100)
    assert hits and first not in {hit["id"] for hit in hits}


def test_another_model_in_the_same_folder_is_refused(index: Path, tmp_path: Path) -> None:
    open_index(index, kept=True).search("picture 3")
    shutil.rmtree(tmp_path / "run")
    save_model(make_model(1), tmp_path / "run")
    with pytest.raises(SearchIndexError, match="fingerprint"):
        open_index(index, kept=True).search("picture 3")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(SearchIndexError, match="no longer"):
        open_index(index, kept=True).search("picture 3")


def test_weights_changed_in_place_are_noticed(index: Path, tmp_path: Path) -> None:
    open_index(index, kept=True).search("picture 3")
    other = tmp_path / "other"
    save_model(make_model(1), other)
    weights = tmp_path / "run" / "model.safetensors"
    assert weights.stat().st_size == (other / weights.name).stat().st_size
    weights.write_bytes((other / weights.name).read_bytes())
    with pytest.raises(SearchIndexError, match="fingerprint"):
        open_index(index, kept=True).search("picture 3")


def test_what_is_damaged_is_kept_anew(index: Path, tmp_path: Path) -> None:
    expected = open_index(index, kept=True).search("picture 3")
    for name, content in (("tower.xml", "<net"), ("vectors.npy", ""), ("tokenizer.json", "{")):
        (damaged,) = (place / name for place in places(tmp_path) if (place / name).exists())
        damaged.write_text(content)
        for _ in range(2):
            hits = open_index(index, kept=True).search("picture 3")
            assert [hit["id"] for hit in hits] == [hit["id"] for hit in expected]
        assert damaged.stat().st_size > len(content)


def test_a_cache_that_cannot_be_written_is_no_failure(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("PLAIT_CACHE", str(blocked))
    assert open_index(index, kept=True).search("picture 3", k=1)
    assert blocked.read_text() == "no folder"


def test_a_tower_that_gives_other_rows_is_not_kept(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LEAST_COSINE", 1.1)
    assert open_index(index, kept=True).search("picture 3", k=1)
    assert not [place for place in places(tmp_path) if (place / "tower.xml").exists()]


def test_without_openvino_torch_answers(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = open_index(index, kept=True).search("picture 3", k=1)
    monkeypatch.setattr(kept, "find_spec", lambda name: None)
    assert open_index(index, kept=True).search("picture 3", k=1)[0]["id"] == expected[0]["id"]


def test_large_indexes_stay_in_their_database(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_ROWS", 5)
    assert open_index(index, kept=True).search("picture 3", k=1)
    assert not [place for place in places(tmp_path) if (place / "vectors.npy").exists()]


def test_the_least_recently_used_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    store = open_store(tmp_path)
    home = tmp_path / "cache" / "search"
    for number, name in enumerate("abc"):
        assert kept.keep_rows(store, home / name)
        os.utime(home / name, (number, number))
    assert {place.name for place in places(tmp_path)} == {"b", "c"}


def open_store(tmp_path: Path) -> LanceStore:
    store = LanceStore(tmp_path / "store", 2, create=True)
    vector = np.array([1.0, 0.0], np.float32)
    store.upsert([Row("one", vector, texts=("line\u2028break\n",))])
    return store


def test_texts_of_several_lines_come_back(tmp_path: Path) -> None:
    place = tmp_path / "kept"
    assert kept.keep_rows(open_store(tmp_path), place)
    copied = kept.kept_rows(place)
    assert copied is not None
    (row,) = copied.rows()
    assert row.texts == ("line\u2028break\n",)
    assert len(json.loads((place / "rows.jsonl").read_text())) == 7
    for refused in (copied.upsert, copied.delete):
        with pytest.raises(SearchIndexError, match="to search"):
            refused([])
