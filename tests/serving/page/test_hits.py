"""Hits on the page: the file, the metadata, the picture, more like one; and what stays hidden."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from tests.serving.made import DIM, MODEL, image_row, noisy

from plait.core.errors import UserError
from plait.retrieval.index.manifest import Manifest
from plait.retrieval.store.columns import Column
from plait.retrieval.store.lance import LanceStore
from plait.retrieval.store.store import Row
from plait.serving.base.settings import Settings
from plait.serving.http.app import create_app
from plait.serving.page.deeds import Deeds
from plait.serving.page.hits import MOST_ENTRIES, columns_html, hits_html, view_html
from plait.serving.page.words import WORDS
from plait.serving.process.worker import build_service
from plait.serving.service.search_process import LARGE, OUTSIDE

SAY = WORDS["en"]
BAD = '<script>"x"</script>&<b>'


@pytest.fixture(scope="module")
def served(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, Path]]:
    """An index with a picture in a folder, a large one without a caption, and one outside."""
    top = tmp_path_factory.mktemp("machine")
    folder = top / "index"
    (folder / "sea").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    places = [folder / "sea" / "wave.png", folder / "wide.png", top / "private.png"]
    for number, place in enumerate(places):
        shape = (2500, 100) if number == 1 else (40, 30)
        Image.fromarray(picture).resize(shape).save(place)
    os.utime(places[0], (1_600_000_000, 1_600_000_000))
    vectors = [image_row(noisy(number)).astype(np.float32) for number in range(3)]
    texts: list[tuple[str, ...]] = [("a wave", "water"), (), ("private",)]
    rows = [
        Row(f"p{n}", vectors[n], "image", texts[n], str(places[n]), None, {"author": BAD, "n": n})
        for n in range(3)
    ]
    LanceStore(folder, DIM, create=True).upsert(rows)
    Manifest(DIM, MODEL, columns=("author", "n"), modalities=("image",)).save(folder)
    with TestClient(create_app(build_service(replace(settings, index=str(folder))))) as client:
        yield client, top


def test_hits_tell_of_their_file_and_of_nothing_outside(served: tuple[TestClient, Path]) -> None:
    client, top = served
    deeds = Deeds(client.app.state.service)  # type: ignore[attr-defined]
    assert client.portal is not None
    hits, *_ = client.portal.call(deeds.search, "a wave", None, 12, "")
    by_id = {hit["id"]: hit for hit in hits}
    assert by_id["p0"]["file"] | {"date": ""} == {"name": "wave.png", "folder": "sea", "date": ""}
    assert re.fullmatch(r"2020-09-1[234] \d\d:\d\d", by_id["p0"]["file"]["date"])
    assert by_id["p1"]["file"]["folder"] is None and by_id["p1"]["text"] is None
    assert by_id["p2"]["file"] is None and by_id["p2"]["thumbnail_problem"] == OUTSIDE
    page = hits_html(hits, SAY)
    assert page.count("<li>") == 3 and page.count(SAY["no_caption"]) == 1
    assert all(word in page for word in ("wave.png", ">wave.png<br>sea<br>2020-09-1", "a wave"))
    for told in (page, json.dumps(hits)):
        assert str(top) not in told and top.name not in told and "private.png" not in told
    assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;" in page


def test_the_picture_itself_and_more_like_it(served: tuple[TestClient, Path]) -> None:
    client, top = served
    deeds = Deeds(client.app.state.service)  # type: ignore[attr-defined]
    assert client.portal is not None
    wide = client.portal.call(deeds.show, "image/0/p1")
    data = base64.b64decode(wide["thumbnail"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (LARGE, round(100 * LARGE / 2500))
    small = client.portal.call(deeds.show, "image/0/p0")
    page = view_html(small, SAY)
    assert "<p>a wave</p><p>water</p>" in page and "&lt;script&gt;" in page
    assert "<script>" not in page
    hidden = client.portal.call(deeds.show, "image/0/p2")
    assert hidden["thumbnail"] is None and hidden["file"] is None
    assert "private.png" not in view_html(hidden, SAY) + json.dumps(hidden)
    alike, _ = client.portal.call(deeds.similar, "image/0/p0", 12, "n != 2")
    assert [hit["id"] for hit in alike] == ["p1"]
    columns = client.portal.call(deeds.columns)
    assert [one.name for one in columns][:2] == ["author", "n"]
    assert str(top) not in columns_html(columns, SAY)
    for key in (str(top / "private.png"), "image/0/../../private.png", "image/0/p0\0", ""):
        for asked in (deeds.show(key), deeds.similar(key, 3, "")):
            with pytest.raises(UserError):
                client.portal.call(lambda asked=asked: asked)


def test_what_is_told_is_escaped_and_bounded() -> None:
    hit = {
        "id": BAD,
        "key": f"image/0/{BAD}",
        "score": 0.5,
        "text": BAD,
        "texts": [BAD],
        "metadata": {BAD: BAD, "list": [BAD], **{f"k{n}": "v" * 5000 for n in range(99)}},
        "file": {"name": BAD, "folder": BAD, "date": BAD},
        "thumbnail": None,
        "thumbnail_problem": BAD,
    }
    say = dict.fromkeys(SAY, BAD)
    pages = [
        hits_html([hit], say, like=f"image/0/{BAD}"),
        hits_html([{**hit, "thumbnail": BAD, "text": None, "file": None}], say),
        hits_html([], say),
        view_html(hit, say),
        view_html({**hit, "thumbnail": BAD, "texts": []}, say),
        columns_html([Column(BAD, "text", (BAD,), missing=1)], say),
    ]
    for page in pages:
        assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;" in page
        assert len(page) < 40 * 400 and page.count("<dt>") <= MOST_ENTRIES + 1
        assert '"x"' not in page  # nor out of an attribute
