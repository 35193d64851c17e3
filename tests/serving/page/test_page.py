"""The page: both languages, what the served models can do, keys, and the same answers as /v1."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from tests.serving.conftest import KEY
from tests.serving.visitor import Page, Visitor

from plait.serving.page.deeds import Deeds, RequestError
from plait.serving.page.html import bars_html
from plait.serving.page.words import WORDS


@pytest.fixture(scope="module")
def url(page: Page) -> str:
    return page.url


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shown") / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def url_of(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.mark.parametrize("way_in", ["/", "/page", "/page/"])
@pytest.mark.parametrize(
    ("asked", "given"), [("zh-CN,zh;q=0.9,en;q=0.5", "zh"), ("de", "en"), ("", "en")]
)
def test_the_browser_s_language_is_taken(url: str, way_in: str, asked: str, given: str) -> None:
    status, text = Visitor(url).get(way_in, **{"Accept-Language": asked})
    assert status == 200 and text.startswith(f"{url}/page/{given}/\n")


def test_a_key_is_asked_for(url: str) -> None:
    visitor = Visitor(url)
    for guarded in ("/v1/models", "//v1/models", "//", "/metrics"):
        assert visitor.get(guarded)[0] == 401
    assert visitor.get("/page/en/config")[0] == 401
    assert visitor.get("/page/en/login", {"username": "ann", "password": "guess"})[0] == 400
    assert visitor.get("/page/en/login", {"username": "", "password": ""})[0] in (400, 422)
    assert visitor.get("/page/en/login", {"username": "ann", "password": KEY})[0] == 200
    assert visitor.get("/page/en/config")[0] == 200
    assert visitor.get("/v1/models")[0] == 401  # the page's login is the page's


@pytest.mark.parametrize("language", ["en", "zh"])
def test_there_is_a_tab_for_each_thing_that_is_served(url: str, language: str) -> None:
    visitor = Visitor(url)
    visitor.get(f"/page/{language}/login", {"username": "ann", "password": KEY})
    config = json.loads(visitor.get(f"/page/{language}/config")[1].partition("\n")[2])
    tabs = [one["props"]["label"] for one in config["components"] if one["type"] == "tabitem"]
    say = WORDS[language]
    assert tabs == [say["search"], say["classify"], say["ask"], say["compare"]]
    text = str([one["props"] for one in config["components"]])
    assert say["only_one"] in text and f'href="/page/{"zh" if language == "en" else "en"}/"' in text
    told = json.loads(visitor.get(f"/page/{language}/gradio_api/info")[1].partition("\n")[2])
    assert told["named_endpoints"] == {}  # its handlers are no endpoints


def test_both_languages_say_all() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()


def test_it_says_what_the_endpoints_say(client: TestClient, picture: Path) -> None:
    deeds = Deeds(client.app.state.service)  # type: ignore[attr-defined]
    labels = ["red", "a longer label", "blue"]
    assert client.portal is not None
    found = client.portal.call(deeds.classify, "tiny", picture.read_bytes(), labels, "a {} thing")
    body = {"images": [url_of(picture)], "labels": labels, "templates": ["a {} thing"]}
    told = client.post("/v1/classify", json={**body, "model": "tiny"}).json()["data"][0]["labels"]
    assert [name for name, _ in found] == [one["label"] for one in told]
    assert [p for _, p in found] == pytest.approx([one["probability"] for one in told], rel=1e-5)
    answers = client.portal.call(deeds.ask, "teller", picture.read_bytes(), "what is it?")
    body = {"image": url_of(picture), "question": "what is it?", "answers": 5}
    told = client.post("/v1/ask", json=body).json()["answers"]
    assert answers == [(one["answer"], pytest.approx(one["probability"])) for one in told]


def test_its_inputs_have_the_endpoints_limits(
    client: TestClient, tmp_path: Path, picture: Path
) -> None:
    deeds = Deeds(client.app.state.service)  # type: ignore[attr-defined]
    target = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(target, "PNG")  # more pixels than are allowed
    large = tmp_path / "large.png"
    large.write_bytes(target.getvalue())
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert client.portal is not None
    for path, problem in ((large, "pixels"), (text, "not a picture")):
        with pytest.raises(RequestError, match=problem):
            client.portal.call(deeds.classify, "tiny", path.read_bytes(), ["a", "b"], "{}")
    with pytest.raises(RequestError, match="characters"):
        client.portal.call(deeds.ask, "teller", picture.read_bytes(), "why " * 1000)


def test_what_is_told_is_escaped() -> None:
    bad = '<script>"x"</script>'
    page = bars_html([(bad, 0.5)], *[bad] * 3)
    assert "<script>" not in page and "&lt;script&gt;" in page
