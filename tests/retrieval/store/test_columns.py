"""What filters can name, in every store; rows like a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.retrieval.store.test_stores import DIM, MAKERS, unit

from plait.core.errors import SearchIndexError
from plait.retrieval.index.index import Index
from plait.retrieval.index.manifest import Manifest
from plait.retrieval.store.columns import columns_of_facts
from plait.retrieval.store.filters import parse_where
from plait.retrieval.store.store import Row

KNOWN = ('the "year"', "class", "or", "price", "seen", "tags", "title")


def rows() -> list[Row]:
    vectors = unit(40, 0)
    return [
        Row(
            f"p{i}",
            vectors[i],
            texts=(f"text {i}",) if i % 4 else (),
            path=f"/secret/{i}.jpg",
            metadata={
                'the "year"': str(1990 + i % 3),
                "class": ("owl's", "cat", "a dog", "cat")[i % 4],
                "or": i % 2 == 0,
                "price": i / 8,
                "seen": None if i % 2 else "yes",
                "tags": ["x"],
                "title": f"title {i}",
            },
        )
        for i in range(40)
    ]


@pytest.mark.parametrize("kind", list(MAKERS))
def test_every_suggested_filter_finds_what_it_says(kind: str, tmp_path: Path) -> None:
    store = MAKERS[kind](tmp_path / "store")
    store.upsert(rows())
    columns = {one.name: one for one in columns_of_facts(store.facts(1000), KNOWN)}
    assert list(columns) == [*KNOWN, "id", "text", "path", "modality", "language"]
    kinds = {name: column.kind for name, column in columns.items()}
    assert (kinds['the "year"'], kinds["price"]) == ("number", "number")
    assert (kinds["or"], kinds["class"]) == ("truth", "text")
    assert columns["class"].values == ("cat", "owl's", "a dog")  # the commonest first
    assert columns['the "year"'].values == ("1990", "1991", "1992")
    assert (columns["price"].least, columns["price"].greatest) == (0, 39 / 8)
    assert columns["text"].missing == 10 and columns["tags"].missing == 40
    assert columns["tags"].suggested() == columns["language"].suggested() == []
    assert columns["path"].values == columns["title"].values == ()
    counts = {}
    for column in columns.values():
        for one in column.suggested():
            counts[one] = len(store.search(unit(1, 9)[0], 40, parse_where(one, KNOWN)))
    assert counts["class = 'owl''s'"] == 10 and counts["class = 'cat'"] == 20
    assert counts['"the ""year""" = 1990'] == 14 and counts['"or" = true'] == 20
    assert counts["text IS NULL"] == 10 and counts["seen IS NULL"] == 20
    assert counts["price >= 0"] == counts["price <= 4.875"] == 40
    assert not any("secret" in one for one in counts)
    assert len(store.facts(7)) == 7


def test_values_that_no_line_can_hold_are_not_suggested() -> None:
    facts = [{"text": value} for value in ("two\nlines", "x" * 99, "", "fits") for _ in range(2)]
    (text,) = [one for one in columns_of_facts(facts, ()) if one.name == "text"]
    assert text.values == ("fits",)


def test_rows_like_a_row_are_others_and_nearest(tmp_path: Path) -> None:
    made = rows()
    store = MAKERS["lance"](tmp_path)
    store.upsert(made)
    index = Index(tmp_path, Manifest(DIM, "m", columns=KNOWN, modalities=("image",)), store)
    expected = np.argsort([-float(made[3].vector @ row.vector) for row in made], kind="stable")
    hits = index.similar("image/0/p3", k=5)
    assert [hit["id"] for hit in hits] == [f"p{i}" for i in expected if i != 3][:5]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    owls = index.similar("image/0/p3", k=40, where="class = 'owl''s'")
    assert sorted(hit["id"] for hit in owls) == sorted(f"p{i}" for i in range(0, 40, 4))
    for wrong in ("image/0/none", "text/0/p3", "p3", "", "image/0/p\0", "image/0/' OR 1=1 --"):
        with pytest.raises(SearchIndexError):
            index.similar(wrong)
