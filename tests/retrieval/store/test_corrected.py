"""An index that ranks by cosine less a correction, against plain numpy, in both stores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.retrieval.conftest import make_model

from plait.core.errors import SearchIndexError
from plait.data.base.dataset import PairDataset
from plait.models.alignment.alignment import AlignmentModel
from plait.models.base.hubs import HubCorrection
from plait.models.store.storage import save_model
from plait.retrieval import build_index as build
from plait.retrieval import open_index
from plait.retrieval.index.manifest import model_fingerprint
from plait.retrieval.store.corrected import EXTRA, corrected_rows, extended, extended_query
from plait.retrieval.store.lance import LanceStore
from plait.retrieval.store.memory import MemoryStore
from plait.retrieval.store.store import Row, VectorStore

DIM = 8


def unit(rows: int, seed: int, width: int = DIM) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def correction(width: int = DIM) -> HubCorrection:
    banks = {
        "image": torch.from_numpy(unit(9, 1, width)),
        "text": torch.from_numpy(unit(7, 2, width)),
    }
    return HubCorrection(banks, neighbours=3, strength=1.0)


@pytest.fixture(params=["memory", "lance"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VectorStore:
    if request.param == "memory":
        return MemoryStore(DIM + EXTRA)
    return LanceStore(tmp_path / "store", DIM + EXTRA, create=True)


@pytest.mark.parametrize("asked_by", ["text", "image", None])
def test_a_store_of_cosines_ranks_by_corrected_scores(
    store: VectorStore, asked_by: str | None
) -> None:
    hubs, pictures, words = correction(), unit(60, 3), unit(50, 4)
    store.upsert(
        corrected_rows(
            [
                *(Row(f"p{i}", vector) for i, vector in enumerate(pictures)),
                *(Row(f"t{i}", vector, "text") for i, vector in enumerate(words)),
            ],
            hubs,
        )
    )
    names = [f"p{i}" for i in range(60)] + [f"t{i}" for i in range(50)]
    changed = 0
    for query in unit(10, 5):
        bias = np.zeros(110)
        if asked_by == "text":
            bias[:60] = hubs.bias("image", pictures, "text")
        if asked_by == "image":
            bias[60:] = hubs.bias("text", words, "image")
        cosines = np.concatenate([pictures, words]).astype(np.float64) @ query.astype(np.float64)
        expected = cosines - bias
        corrects = {"text": ("image",), "image": ("text",), None: ()}[asked_by]
        vector, factor = extended_query(query, corrects)
        hits = store.search(vector, 110, None)
        order = np.argsort(-expected)
        assert [hit.row.id for hit in hits] == [names[i] for i in order]
        np.testing.assert_allclose([h.score * factor for h in hits], expected[order], atol=2e-6)
        changed += list(order) != list(np.argsort(-cosines))
    assert changed == (0 if asked_by is None else 10)


def test_vectors_for_a_store_have_unit_length() -> None:
    vectors, bias = unit(5, 0), np.array([-1.0, -0.3, 0.0, 0.7, 1.0])
    made = extended(vectors, bias, "text")
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    query, factor = extended_query(vectors[0], ("text",))
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(made @ query * factor, vectors @ vectors[0] - bias, atol=1e-6)


@pytest.fixture(scope="module")
def hubby() -> AlignmentModel:
    model = make_model()
    model.hubs = correction(12)
    return model


@pytest.fixture
def index(hubby: AlignmentModel, dataset: PairDataset, tmp_path: Path) -> Path:
    save_model(hubby, tmp_path / "run")
    out = tmp_path / "index"
    build(hubby, dataset, out, run=tmp_path / "run", texts=True, engine="torch")
    return out


def gallery(model: AlignmentModel, dataset: PairDataset) -> dict[str, np.ndarray]:
    texts = [text for sample in dataset for text in sample.texts]
    return model.embed(images=[sample.image for sample in dataset], texts=texts)


@pytest.mark.parametrize("in_memory", [False, True])
def test_words_vectors_and_pictures(
    index: Path, hubby: AlignmentModel, dataset: PairDataset, in_memory: bool
) -> None:
    opened, known = open_index(index, in_memory=in_memory), gallery(hubby, dataset)
    assert hubby.hubs is not None
    bias = hubby.hubs.bias("image", known["image"], "text")
    asked = hubby.embed(texts=["picture 3"])["text"][0]
    expected = known["image"] @ asked - bias
    for query in ("picture 3", asked):
        hits = opened.search(query, k=10)
        assert [hit["id"] for hit in hits] == [dataset[int(i)].id for i in np.argsort(-expected)]
        np.testing.assert_allclose([h["score"] for h in hits], -np.sort(-expected), atol=5e-3)
    cosines = known["image"] @ known["image"][5]
    hits = opened.search(dataset[5].image, k=10, find="image")
    assert hits[0]["id"] == "p5" and hits[0]["score"] > 0.99
    np.testing.assert_allclose([h["score"] for h in hits], -np.sort(-cosines), atol=5e-3)
    texts = known["text"] @ known["image"][5] - hubby.hubs.bias("text", known["text"], "image")
    for query in (dataset[5].image, known["image"][5]):
        hits = opened.search(query, k=16, find="text")
        np.testing.assert_allclose([h["score"] for h in hits], -np.sort(-texts), atol=5e-3)
    same = known["text"] @ known["text"][0]
    hits = opened.search("picture 0", k=16, find="text")
    np.testing.assert_allclose([h["score"] for h in hits], -np.sort(-same), atol=5e-3)
    every = np.concatenate([known["image"], known["text"]]) @ asked
    hits = opened.search(asked, k=26, find="any")
    np.testing.assert_allclose([h["score"] for h in hits], -np.sort(-every), atol=5e-3)
    with pytest.raises(SearchIndexError, match=r"\(15,\).*\(12,\)"):
        opened.search(np.ones(15, dtype=np.float32))


def test_adding_deleting_and_moving(
    index: Path, hubby: AlignmentModel, dataset: PairDataset, tmp_path: Path
) -> None:
    before = open_index(index).search("picture 3", k=10)
    assert open_index(index).delete(["p3", "p8"]) == 2
    assert build(hubby, dataset, index, add=True, texts=True, engine="torch").rows == 26
    assert open_index(index).search("picture 3", k=10) == before
    new = tmp_path / "new"
    new.mkdir()
    (tmp_path / "run").rename(new / "run")
    index.rename(new / "index")
    assert [hit["id"] for hit in open_index(new / "index").search("picture 3", k=10)] == [
        hit["id"] for hit in before
    ]


def test_another_correction_is_another_model(
    index: Path, hubby: AlignmentModel, dataset: PairDataset
) -> None:
    plain, stronger = make_model(), make_model()
    assert hubby.hubs is not None
    banks = {name: hubby.hubs.bank(name) for name in hubby.hubs.names}
    stronger.hubs = HubCorrection(banks, neighbours=3, strength=0.5)
    assert len({model_fingerprint(model) for model in (plain, hubby, stronger)}) == 3
    for model in (plain, stronger):
        with pytest.raises(SearchIndexError, match="fingerprint"):
            open_index(index, model=model)
        with pytest.raises(SearchIndexError, match="fingerprint"):
            build(model, dataset, index, add=True, engine="torch")


def test_an_index_of_before_works(dataset: PairDataset, tmp_path: Path) -> None:
    model = make_model()
    build(model, dataset, tmp_path / "index", engine="torch")
    path = tmp_path / "index" / "manifest.json"
    told = json.loads(path.read_text())
    assert told.pop("corrected") is False
    path.write_text(json.dumps({**told, "version": 1}))
    opened = open_index(tmp_path / "index", model=model)
    assert opened.store.dim == 12
    assert opened.search(dataset[5].image, k=1)[0]["id"] == "p5"
    more = replace(dataset[0], id="more")
    assert opened.add(model, PairDataset([more], "test"), engine="torch").rows == 1
