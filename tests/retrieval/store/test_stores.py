"""One suite for all vector stores; what is expected comes from plain numpy and Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plait.core.errors import SearchIndexError
from plait.retrieval.store import lance
from plait.retrieval.store.filters import All, Among, Compare, Filter, Not, Some, parse_where
from plait.retrieval.store.lance import LanceStore
from plait.retrieval.store.memory import MemoryStore
from plait.retrieval.store.store import Row, VectorStore

DIM = 8
MAKERS: dict[str, Callable[[Path], VectorStore]] = {
    "memory": lambda folder: MemoryStore(DIM),
    "lance": lambda folder: LanceStore(folder, DIM, create=True),
}


@pytest.fixture(params=list(MAKERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VectorStore:
    return MAKERS[request.param](tmp_path / "store")


def unit(rows: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def rows(count: int = 40, seed: int = 0) -> list[Row]:
    vectors = unit(count, seed)
    return [
        Row(
            id=f"photo {i}'s",
            vector=vectors[i],
            texts=(f"a {'cat' if i % 3 else 'dog'}", f"第{i}张"),
            path=f"/data/{i}.jpg" if i % 4 else None,
            metadata={"year": 2000 + i, "split": "test" if i % 2 else "train", "tags": ["x", i]},
        )
        for i in range(count)
    ]


def test_is_a_store(store: VectorStore) -> None:
    assert isinstance(store, VectorStore)
    assert store.dim == DIM and len(store) == 0
    assert store.search(unit(1, 9)[0], 3, None) == []


def test_nearest_first(store: VectorStore) -> None:
    made = rows()
    store.upsert(made)
    assert len(store) == 40
    for query in unit(5, 1):
        scores = np.stack([row.vector for row in made]) @ query
        order = np.argsort(-scores)[:7]
        found = store.search(query, 7, None)
        assert [hit.row.id for hit in found] == [made[i].id for i in order]
        np.testing.assert_allclose([hit.score for hit in found], scores[order], atol=1e-6)
    assert len(store.search(unit(1, 1)[0], 1000, None)) == 40


def test_rows_come_back_as_they_went_in(store: VectorStore) -> None:
    made = rows(6)
    made[2] = Row("text", unit(1, 3)[0], "text", ("only words",), None, "zh", {"a": {"b": [1]}}, 4)
    store.upsert(made)
    for row in made:
        hit = store.search(row.vector, 1, None)[0]
        assert hit.score == pytest.approx(1, abs=1e-6)
        np.testing.assert_array_equal(hit.row.vector, row.vector)
        for name in ("id", "modality", "texts", "path", "language", "metadata", "number", "key"):
            assert getattr(hit.row, name) == getattr(row, name)
    assert [row.key for row in store.rows()] == sorted(row.key for row in made)
    assert [row.id for row in store.rows(["text", "nobody"])] == ["text"]


def test_upsert_replaces_all_rows_of_an_id(store: VectorStore) -> None:
    vectors = unit(5, 0)
    texts = [Row("a", vectors[i], "text", (f"t{i}",), number=i) for i in range(3)]
    store.upsert([Row("a", vectors[3]), *texts, Row("b", vectors[4])])
    assert len(store) == 5
    store.upsert([Row("a", vectors[0]), Row("a", vectors[1], "text", ("new",))])
    assert [(row.id, row.modality, row.texts) for row in store.rows()] == [
        ("a", "image", ()),
        ("b", "image", ()),
        ("a", "text", ("new",)),
    ]
    np.testing.assert_array_equal(store.rows(["a"])[0].vector, vectors[0])
    store.upsert([])
    assert len(store) == 3


def test_delete_counts_what_was_there(store: VectorStore) -> None:
    store.upsert(rows(10))
    assert store.delete(["photo 3's", "photo 4's", "photo 3's", "x' OR '1'='1"]) == 2
    assert len(store) == 8
    assert store.delete([]) == 0 and store.delete(["photo 3's"]) == 0
    assert "photo 3's" not in {hit.row.id for hit in store.search(unit(1, 0)[0], 99, None)}
    store.optimize()
    assert len(store) == 8


def test_equal_scores_stand_in_the_order_of_keys(store: VectorStore) -> None:
    vector = unit(1, 0)[0]
    store.upsert([Row(name, vector) for name in ("c", "a", "b")])
    assert [hit.row.id for hit in store.search(vector, 3, None)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones(3, dtype=np.float32), r"\(3,\).*\(8,\)"),
        (np.zeros(DIM, dtype=np.float32), "length 0"),
        (np.full(DIM, np.nan, dtype=np.float32), "length nan"),
        (np.full(DIM, 2.0, dtype=np.float32), "length 5"),
    ],
)
def test_unfit_vectors_are_refused(store: VectorStore, bad: np.ndarray, message: str) -> None:
    store.upsert(rows(2))
    with pytest.raises(SearchIndexError, match=message):
        store.search(bad, 1, None)
    with pytest.raises(SearchIndexError, match=message):
        store.upsert([Row("good", unit(1, 0)[0]), Row("bad", bad)])
    assert len(store) == 2  # nothing of the refused rows went in


def test_the_same_id_twice_is_refused(store: VectorStore) -> None:
    with pytest.raises(SearchIndexError, match="'a'"):
        store.upsert([Row("a", unit(1, 0)[0]), Row("a", unit(1, 1)[0])])
    with pytest.raises(SearchIndexError, match="at least 1"):
        store.search(unit(1, 0)[0], 0, None)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("split = 'test'", lambda i: i % 2 == 1),
        ("split != 'test' and year >= 2020", lambda i: i % 2 == 0 and i >= 20),
        ("year in (2003, 2004) or id = 'photo 7''s'", lambda i: i in (3, 4, 7)),
        ("text like '%DOG%'", lambda i: i % 3 == 0),
        ("text like '%第1_张%'", lambda i: 10 <= i <= 19),
        ("path is null", lambda i: i % 4 == 0),
        ("not (path is not null and year < 2010)", lambda i: i % 4 == 0 or i >= 10),
        ("modality = 'text'", lambda i: False),
        ("language is null", lambda i: True),
        ("tags is null", lambda i: True),  # a list is no scalar
        ('"year" = 2005', lambda i: i == 5),
        ({"split": "train", "year": [2000, 2001, 2002]}, lambda i: i in (0, 2)),
        ("year not in (2003, '2004', true)", lambda i: i not in (3, 4)),
        ("year = 2003 or split = 'no' or year = 2004 or text like '%'", lambda i: True),
        ("not (not (not (year != 2003 and not (year = 2004))))", lambda i: i in (3, 4)),
        ({}, lambda i: True),
        ("id in ('''; drop table rows --', 'photo 1''s')", lambda i: i == 1),
    ],
)
def test_filters(store: VectorStore, where, expected: Callable[[int], bool]) -> None:
    made = rows()
    store.upsert(made)
    part = parse_where(where, ["year", "split", "tags"])
    found = {hit.row.id for hit in store.search(unit(1, 5)[0], 100, part)}
    assert found == {made[i].id for i in range(40) if expected(i)}


def test_a_filter_comes_before_the_limit(store: VectorStore) -> None:
    made = rows()
    store.upsert(made)
    worst = store.search(unit(1, 5)[0], 40, None)[-1].row
    part = parse_where({"id": worst.id}, [])
    assert [hit.row.id for hit in store.search(unit(1, 5)[0], 1, part)] == [worst.id]


def test_an_approximate_index_takes_over_for_many_rows(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lance, "INDEX_FROM", 2000)
    store, exact = LanceStore(tmp_path / "store", DIM, create=True), MemoryStore(DIM)
    made = rows(2400)
    for part in (made[:1000], made[1000:2100], made[2100:]):
        store.upsert(part)
        exact.upsert(part)
        indexed = bool(store._table.list_indices())
        assert indexed == (len(store) >= 2000)
    where = parse_where("split = 'test'", ["split"])
    shared = []
    for query in unit(20, 1):
        near, truth = store.search(query, 10, where), exact.search(query, 10, where)
        shared.append(len({h.row.id for h in near} & {h.row.id for h in truth}))
        scores = {h.row.id: h.score for h in truth}
        for hit in near:
            assert hit.score == pytest.approx(scores.get(hit.row.id, hit.score), abs=1e-5)
    assert np.mean(shared) >= 9.5
    last = made[-1]  # added after the index was made
    assert store.search(last.vector, 1, None)[0].row.id == last.id
    store.optimize()
    assert store.search(last.vector, 1, None)[0].row.id == last.id


AWKWARD = [
    "",
    "a",
    "A",
    "1",
    "-1.5",
    "1e3",
    " 1",
    "inf",
    "nan",
    "true",
    "%",
    "_",
    "\\",
    "a\nb",
    "'",
]
AWKWARD += ["it''s", '"', "é", "ß", "红色", "x' OR '1'='1", "\\%", "$.v", "a%b", "0x10", "1_0"]
WORDS = st.sampled_from(AWKWARD) | st.text(alphabet="ab%_\\'é1. ", max_size=4)
NUMBERS = st.sampled_from([0.0, 1.0, -1.5, 1000.0, 10.0, 1e300])
KEYS = ["a", "b c", "d'\"\\", "text", "language"]


def comparisons() -> st.SearchStrategy[Filter]:
    keys = st.sampled_from(KEYS)
    order = st.sampled_from(["=", "<", "<=", ">", ">="])
    return (
        st.builds(Compare, keys, order, WORDS | NUMBERS | st.booleans())
        | st.builds(Compare, keys, st.just("like"), WORDS)
        | st.builds(Compare, keys, st.just("null"))
        | st.builds(Among, keys, st.lists(WORDS | NUMBERS | st.booleans(), max_size=4).map(tuple))
    )


def trees() -> st.SearchStrategy[Filter]:
    return st.recursive(
        comparisons(),
        lambda inner: (
            st.builds(Not, inner)
            | st.builds(lambda parts: All(tuple(parts)), st.lists(inner, max_size=3))
            | st.builds(lambda parts: Some(tuple(parts)), st.lists(inner, max_size=3))
        ),
        max_leaves=5,
    )


METADATA = st.dictionaries(
    st.sampled_from(KEYS[:3]),
    WORDS | st.booleans() | st.none() | st.integers(-3, 3) | st.sampled_from([1.5, 1e300, 10.0]),
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[VectorStore, VectorStore]:
    return MemoryStore(DIM), LanceStore(tmp_path_factory.mktemp("both") / "s", DIM, create=True)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(METADATA, st.lists(WORDS, max_size=2), st.none() | WORDS), min_size=1, max_size=6
    ),
    st.lists(trees(), min_size=1, max_size=6),
)
def test_any_filter_means_the_same_in_every_store(both, contents, filters) -> None:
    vectors = unit(len(contents), 0)
    made = [
        Row(str(i), vectors[i], texts=tuple(texts), language=language, metadata=metadata)
        for i, (metadata, texts, language) in enumerate(contents)
    ]
    found = []
    for store in both:
        store.delete([str(i) for i in range(6)])
        store.upsert(made)
        found.append(
            [sorted(hit.row.id for hit in store.search(vectors[0], 9, part)) for part in filters]
        )
    assert found[0] == found[1]
