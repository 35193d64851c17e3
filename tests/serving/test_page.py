"""The page: both languages, what the served models can do, keys, and the same answers as /v1."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from plait.serving.app import PAGE, create_app
from plait.serving.page import mount_page
from plait.serving.page_deeds import Deeds, RequestError
from plait.serving.page_html import bars_html, hits_html
from plait.serving.page_words import WORDS
from plait.serving.settings import Settings
from plait.serving.worker import build_service
from tests.serving.conftest import KEY

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def paged(settings: Settings) -> Iterator[TestClient]:
    service = build_service(replace(settings, page=True))
    app = mount_page(create_app(service, free=[PAGE]), service, {})
    with TestClient(app) as made:
        yield made


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shown") / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def url_of(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.mark.parametrize(
    ("asked", "given"), [("zh-CN,zh;q=0.9,en;q=0.5", "zh"), ("de", "en"), ("", "en")]
)
def test_the_browser_s_language_is_taken(paged: TestClient, asked: str, given: str) -> None:
    answer = paged.get("/page", headers={"Accept-Language": asked}, follow_redirects=False)
    assert answer.status_code == 307 and answer.headers["location"] == f"/page/{given}/"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_there_is_a_tab_for_each_thing_that_is_served(paged: TestClient, language: str) -> None:
    config = paged.get(f"/page/{language}/config").json()
    tabs = [one["props"]["label"] for one in config["components"] if one["type"] == "tabitem"]
    say = WORDS[language]
    assert tabs == [say["classify"], say["ask"], say["compare"]]  # no index, so no search
    text = str([one["props"] for one in config["components"]])
    assert say["only_one"] in text and f'href="/page/{"zh" if language == "en" else "en"}/"' in text


def test_both_languages_say_all() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()


def test_its_handlers_are_no_endpoints(paged: TestClient) -> None:
    assert paged.get("/page/en/gradio_api/info").json()["named_endpoints"] == {}
    assert "/page" not in str(paged.get("/openapi.json").json()["paths"].keys())


def test_a_key_is_asked_for(settings: Settings) -> None:
    service = build_service(replace(settings, page=True))
    app = mount_page(create_app(service, keys={"ann": KEY}, free=[PAGE]), service, {"ann": KEY})
    with TestClient(app) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/page/en/config").status_code == 401
        wrong = client.post("/page/en/login", data={"username": "ann", "password": "guess"})
        assert wrong.status_code == 400
        right = client.post("/page/en/login", data={"username": "ann", "password": KEY})
        assert right.status_code == 200
        assert client.get("/page/en/config").status_code == 200
        assert client.get("/v1/models").status_code == 401  # the page's login is the page's


def test_it_says_what_the_endpoints_say(paged: TestClient, picture: Path) -> None:
    deeds = Deeds(paged.app.state.service)  # type: ignore[attr-defined]
    labels = ["red", "a longer label", "blue"]
    assert paged.portal is not None
    found = paged.portal.call(deeds.classify, "tiny", str(picture), labels, "a {} thing")
    body = {"images": [url_of(picture)], "labels": labels, "templates": ["a {} thing"]}
    told = paged.post("/v1/classify", json={**body, "model": "tiny"}).json()["data"][0]["labels"]
    assert [name for name, _ in found] == [one["label"] for one in told]
    assert [p for _, p in found] == pytest.approx([one["probability"] for one in told], rel=1e-5)
    answers = paged.portal.call(deeds.ask, "teller", str(picture), "what is it?")
    body = {"image": url_of(picture), "question": "what is it?", "answers": 5}
    told = paged.post("/v1/ask", json=body).json()["answers"]
    assert answers == [(one["answer"], pytest.approx(one["probability"])) for one in told]


def test_its_inputs_have_the_endpoints_limits(
    paged: TestClient, tmp_path: Path, picture: Path
) -> None:
    deeds = Deeds(paged.app.state.service)  # type: ignore[attr-defined]
    target = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(target, "PNG")  # more pixels than are allowed
    large = tmp_path / "large.png"
    large.write_bytes(target.getvalue())
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert paged.portal is not None
    start = time.monotonic()
    for path, problem in ((large, "pixels"), (text, "not a picture")):
        with pytest.raises(RequestError, match=problem):
            paged.portal.call(deeds.classify, "tiny", str(path), ["a", "b"], "{}")
    with pytest.raises(RequestError, match="characters"):
        paged.portal.call(deeds.ask, "teller", str(picture), "why " * 1000)
    assert time.monotonic() - start < 30


def test_what_is_told_is_escaped() -> None:
    bad = '<script>"x"</script>'
    hits = [{"id": "1", "score": 0.5, "text": bad, "thumbnail": None}]
    for page in (
        hits_html(hits, bad, bad),
        hits_html([], bad, bad),
        bars_html([(bad, 0.5)], *[bad] * 3),
    ):
        assert "<script>" not in page and "&lt;script&gt;" in page
