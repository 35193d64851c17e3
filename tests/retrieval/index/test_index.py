"""Building, opening, searching and changing an index, and refusing what does not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.retrieval.conftest import noise

from plait.core.errors import DataError, SearchIndexError, UserError
from plait.core.media import BytesRef
from plait.data import open_dataset
from plait.data.base.dataset import PairDataset
from plait.models.store.storage import save_model
from plait.retrieval import build_index as build
from plait.retrieval import open_index
from plait.retrieval.index.manifest import model_fingerprint
from plait.retrieval.store.memory import MemoryStore


def build_index(*arguments, **options):
    """On torch: compiling a graph for another engine takes longer than these tests."""
    return build(*arguments, engine="torch", **options)


@pytest.fixture
def index(model, dataset, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "run")
    added = build_index(model, dataset, tmp_path / "index", run=tmp_path / "run")
    assert (added.rows, added.skipped) == (10, ())
    return tmp_path / "index"


def test_words_find_pictures_by_cosine(index: Path, model, dataset) -> None:
    opened = open_index(index)
    hits = opened.search("picture 3", k=4)
    vectors = model.embed(images=[s.image for s in dataset], texts=["picture 3"])
    scores = vectors["image"] @ vectors["text"][0]
    order = np.argsort(-scores)[:4]
    assert [hit["id"] for hit in hits] == [dataset[int(i)].id for i in order]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores[order], atol=5e-3)
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4]
    assert json.loads(json.dumps(hits)) == hits


def test_a_picture_finds_itself(index: Path, dataset) -> None:
    opened = open_index(index)
    path = dataset[5].image.path
    for query in (path, Image.open(path), np.asarray(Image.open(path)), dataset[5].image):
        hit = opened.search(query, k=1)[0]
        assert hit["id"] == "p5" and hit["score"] > 0.99
    assert hit["path"] == str(path.resolve()) and hit["text"] == "picture 5"
    assert hit["texts"] == ["picture 5", "第5张图片"]
    assert hit["metadata"] == {"split": "test", "year": 2005}


def test_a_picture_without_file_leaves_a_thumbnail(index: Path, dataset, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "index"
    shutil.copytree(index, moved)
    hit = open_index(moved).search(noise(8), k=1)[0]
    assert hit["id"] == "p8" and hit["text"] is None
    assert Path(hit["path"]).parent.parent.parent == moved.resolve()
    with Image.open(hit["path"]) as thumbnail:
        assert thumbnail.size == (50, 40)
    assert hit["metadata"]["source"] == "shard.tar!8.png"


def test_filters_and_exact_search_in_memory(index: Path) -> None:
    where = "split = 'test' and year > 2001"
    disk, memory = open_index(index), open_index(index, in_memory=True)
    assert isinstance(memory.store, MemoryStore)
    found = disk.search("picture", where=where)
    assert {hit["id"] for hit in found} == {"p3", "p5", "p7"}
    again = memory.search("picture", where=where)
    assert [hit["id"] for hit in again] == [hit["id"] for hit in found]
    with pytest.raises(SearchIndexError, match="did you mean 'year'"):
        disk.search("picture", where="yaer > 2001")


def test_texts_can_be_found_too(model, dataset, tmp_path: Path) -> None:
    build_index(model, dataset, tmp_path / "both", texts=True)
    opened = open_index(tmp_path / "both", model=model)
    assert len(opened) == 10 + 16
    hit = opened.search("第4张图片", k=1, find="text")[0]
    assert (hit["id"], hit["text"], hit["language"]) == ("p4", "第4张图片", "zh")
    assert hit["path"] == str(dataset[4].image.path.resolve())
    assert all(h["modality"] == "image" for h in opened.search("picture 4", k=26))
    assert len(opened.search("picture 4", k=26, find="any")) == 26
    zh = opened.search("picture", k=26, find="any", where={"language": "zh"})
    assert len(zh) == 8
    with pytest.raises(SearchIndexError, match="'image', 'text' or 'any'"):
        opened.search("x", find="sound")
    assert opened.delete(["p4"]) == 1 and len(opened) == 26 - 3


def test_delete_and_add(index: Path, model, dataset) -> None:
    opened = open_index(index)
    thumbnails = list((index / "thumbnails").rglob("*.jpg"))
    assert len(thumbnails) == 2
    assert opened.delete(["p8", "p0", "nobody"]) == 2
    assert len(open_index(index)) == 8
    assert len(list((index / "thumbnails").rglob("*.jpg"))) == 1
    more = PairDataset(
        [replace(sample, meta={"colour": "red"}) for sample in dataset if sample.id != "p9"], "test"
    )
    assert build_index(model, more, index, add=True).rows == 9
    opened = open_index(index, model=model)
    opened.optimize()
    assert len(opened) == 10
    assert {hit["id"] for hit in opened.search("x", where="colour = 'red'")} == {
        f"p{number}" for number in range(9)
    }


def test_a_picture_is_known_by_its_path_and_needs_no_text(model, tmp_path: Path) -> None:
    for number, name in enumerate(["2019/DSC_1.png", "camera2/DSC_1.png", "camera2/bare.png"]):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(number).save(tmp_path / "photos" / name)
    camera = tmp_path / "photos" / "camera2"
    (camera / "metadata.csv").write_text("file_name,text\nDSC_1.png,words\n")
    old = open_dataset(tmp_path / "photos" / "2019")
    stem = PairDataset([replace(old[0], derived=False)], old.format, old.root)  # as before
    build_index(model, stem, tmp_path / "index")
    more = open_dataset(camera, every_picture=True)
    added = build_index(model, more, tmp_path / "index", add=True)
    assert (added.rows, added.replaced) == (2, 0)
    rows = {row.id: row for row in open_index(tmp_path / "index").store.rows()}
    assert sorted(rows) == ["DSC_1", "camera2/DSC_1.png", "camera2/bare.png"]
    assert rows["camera2/DSC_1.png"].texts == ("words",)
    again = open_dataset(tmp_path / "photos", every_picture=True)  # from another folder
    added = build_index(model, again, tmp_path / "index", add=True)
    assert (added.rows, added.replaced, len(open_index(tmp_path / "index"))) == (3, 3, 3)
    twice = PairDataset([replace(old[0], id="a", derived=False, where=w) for w in "xy"], "test")
    with pytest.raises(DataError, match="the id 'a': x and y"):
        build_index(model, twice, tmp_path / "index", add=True)


def test_pictures_that_are_gone_are_passed_over_and_counted(index: Path, dataset) -> None:
    every = open_index(index).search("picture 3", k=10)
    assert every.gone == 0 and len(every) == 10
    paths = {sample.id: sample.image.path for sample in dataset}
    lost = [hit["id"] for hit in every if paths[hit["id"]] is not None][:5]
    for id in lost:
        paths[id].unlink()
    left = [hit["id"] for hit in every if hit["id"] not in lost]
    hits = open_index(index).search("picture 3", k=2)
    assert [hit["id"] for hit in hits] == left[:2]
    last = [hit["id"] for hit in every].index(left[1])
    assert hits.gone == sum(hit["id"] in lost for hit in every[:last])
    assert [hit["rank"] for hit in hits] == [1, 2]
    everything = open_index(index).search("picture 3", k=10)
    assert ([hit["id"] for hit in everything], everything.gone) == (left, 5)
    shutil.rmtree(index.parent / "pictures")  # all of it: a disk that is not mounted
    hits = open_index(index).search("picture 3", k=10)
    assert (len(hits), hits.gone) == (10, 0)


def test_another_model_is_refused_with_both_fingerprints(
    index: Path, model, other_model, dataset, tmp_path: Path
) -> None:
    def refused() -> pytest.ExceptionInfo:
        return pytest.raises(
            SearchIndexError,
            match=f"fingerprint {model_fingerprint(model)}.*"
            f"fingerprint {model_fingerprint(other_model)}",
        )

    with refused():
        open_index(index, model=other_model)
    with refused():
        open_index(index).check_model(other_model)
    with refused():
        build_index(other_model, dataset, index, add=True)
    save_model(other_model, tmp_path / "run")  # the run was trained anew
    with refused():
        open_index(index).search("picture")


def test_the_run_is_found_after_both_moved(index: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (tmp_path / "run").rename(new / "run")
    index.rename(new / "index")
    assert open_index(new / "index").search("picture", k=1)
    shutil.rmtree(new / "run")
    with pytest.raises(SearchIndexError, match="no longer in"):
        open_index(new / "index").search("picture")


def test_wrong_queries(index: Path, tmp_path: Path) -> None:
    opened = open_index(index)
    for empty in ("", "  \n"):
        with pytest.raises(UserError, match="empty"):
            opened.search(empty)
    with pytest.raises(DataError, match=r"nothing\.png"):
        opened.search(tmp_path / "nothing.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        opened.search(tmp_path / "broken.jpg")
    with pytest.raises(SearchIndexError, match=r"\(5,\)"):
        opened.search(np.ones(5, dtype=np.float32))
    with pytest.raises(SearchIndexError, match="at least 1"):
        opened.search("x", k=0)


def test_what_is_there_is_not_overwritten(index: Path, model, dataset, tmp_path: Path) -> None:
    with pytest.raises(SearchIndexError, match="holds an index already"):
        build_index(model, dataset, index)
    build_index(model, dataset.select([0]), index, overwrite=True)
    assert len(open_index(index)) == 1
    with pytest.raises(SearchIndexError, match="is no index"):
        build_index(model, dataset, tmp_path / "pictures", overwrite=True)
    with pytest.raises(SearchIndexError, match="no index of plait"):
        open_index(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "plait-index", "version": 1}', '{"format": "x"}']
)
def test_a_damaged_manifest_is_named(index: Path, content: str) -> None:
    (index / "manifest.json").write_text(content)
    with pytest.raises(SearchIndexError, match=r"manifest\.json is damaged"):
        open_index(index)


def test_a_failure_leaves_nothing_behind(model, dataset, tmp_path: Path) -> None:
    bad = replace(dataset[3], image=BytesRef(b"no picture", "bad.png"))
    broken = PairDataset([dataset[0], bad, replace(dataset[1], image=None)], "test")
    with pytest.raises(DataError, match=r"bad\.png"):
        build_index(model, broken, tmp_path / "index")
    assert not [path for path in tmp_path.iterdir() if "index" in path.name]
    added = build_index(model, broken, tmp_path / "index", on_bad_row="skip")
    assert added.rows == 1
    assert [row.path for row in added.skipped] == ["row 3", "row 1"]
    with pytest.raises(DataError, match=r"nothing to index.*row 1"):
        build_index(model, PairDataset([broken[2]], "test"), tmp_path / "none")


def test_quiet_and_lazy(index: Path) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "import plait.retrieval, plait.retrieval.store.filters\n"
        "assert not {'torch', 'lancedb'} & set(sys.modules)\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from plait.retrieval.store.lance import LanceStore\n"
        "assert 'lancedb' not in sys.modules\n"
        "store = LanceStore(Path(sys.argv[1]) / 'new', 12, create=True)\n"
        "from plait.retrieval.store.store import Row\n"
        "v = np.eye(12, dtype=np.float32)\n"
        "store.upsert([Row(str(i), v[i]) for i in range(12)])\n"
        "store.upsert([Row('3', v[0])]); store.delete(['1']); store.optimize()\n"
        "print(store.search(v[0], 2, None)[0].row.id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(index)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
