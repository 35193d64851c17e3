"""The page in Debian's Chromium, headless: search, upload, classify, compare, languages, phone, keys."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def url(
    run: Path, pairs: Path, plait: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Two models and an index behind one server."""
    folder = tmp_path_factory.mktemp("served")
    plait("index", run, pairs, "--out", folder / "index")
    shutil.copytree(run, folder / "other")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("plait"), "serve", run, folder / "other", "--page"]
    options = ["--index", folder / "index", "--port", str(port)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 180
        while not _ready(f"http://127.0.0.1:{port}/readyz"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # not listening yet, or busy with starting
        return False


@pytest.fixture
def page(url: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("needs Debian's package chromium")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        made = browser.new_page(viewport={"width": 1100, "height": 900})
        made.set_default_timeout(60_000)
        asked: list[str] = []
        made.on("request", lambda request: asked.append(request.url))
        yield made
        browser.close()
        # It works without the internet: nothing is asked of other hosts.
        away = [one for one in asked if not one.startswith((url, "data:", "blob:"))]
        assert away == []


def test_search_by_words_and_by_picture(page: Any, url: str, photos: Any) -> None:
    page.goto(f"{url}/page/en/")
    words = page.get_by_label("Words to look for")
    words.fill("a red circle")
    words.press("Enter")
    page.wait_for_selector(".plait-hits img")
    assert page.locator(".plait-hits li").count() == 12
    scores = [float(text) for text in page.locator(".plait-hits .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert page.locator(".plait-hits img").first.get_attribute("alt")
    words.fill("")
    picture = sorted(photos.folder.iterdir())[0]
    page.set_input_files("input[type=file] >> nth=0", str(picture))
    page.wait_for_selector("button[aria-label='Remove Image'], button[title*='Remove']")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_function("document.querySelector('.plait-hits .score').innerText > '0.99'")


def test_hits_tell_of_their_file_and_open(page: Any, url: str, pairs: Path) -> None:
    page.goto(f"{url}/page/en/")
    page.get_by_text("Filters of this index").click()
    page.locator("button[data-where]", has_text="split = 'train'").click()
    page.get_by_label("Words to look for").fill("a red circle")
    page.get_by_label("Words to look for").press("Enter")
    first = page.locator(".plait-hits li").first
    first.wait_for()
    told = first.inner_text()
    assert re.search(r"photo_\d{3}\.jpg\nimages\n20\d\d-\d\d-\d\d \d\d:\d\d", told), told
    first.get_by_text("Metadata").click()
    assert first.locator("dd").first.inner_text() == "train"
    for way_out in ("Escape", "Close"):  # and the same picture opens again
        first.get_by_role("button", name="Show the picture").click()
        view = page.locator("dialog.plait-view[open]")
        view.wait_for()
        assert view.locator("img").evaluate("one => one.naturalWidth") == 160
        assert view.locator("p").count() >= 5  # all captions
        if way_out == "Escape":
            page.keyboard.press("Escape")
        else:
            view.get_by_role("button", name="Close").click()
        view.wait_for(state="detached")
    name = first.locator(".file").inner_text().split("\n")[0]
    first.get_by_role("button", name="More like this").click()
    page.get_by_text("like this one found in").wait_for()
    files = page.locator(".plait-hits .file").all_inner_texts()
    assert len(files) == 12 and not any(one.startswith(name) for one in files)
    text = page.content()
    assert str(pairs) not in text and str(pairs.parent) not in text


def test_mistakes_are_told(page: Any, url: str) -> None:
    page.goto(f"{url}/page/en/")
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("Give words or a picture, one of the two.").wait_for()
    page.get_by_label("Words to look for").fill("red")
    page.get_by_label("Filter").fill("no_such_column = 1")
    page.get_by_label("Filter").press("Enter")
    page.get_by_text("no_such_column").last.wait_for()


def test_classify_and_compare(page: Any, url: str, photos: Any) -> None:
    picture = str(sorted(photos.folder.iterdir())[0])
    page.goto(f"{url}/page/en/")
    for tab, button, tables in (("Classify", "Classify", 1), ("Two models", "Compare", 2)):
        page.get_by_role("tab", name=tab).click()
        shown = page.get_by_role("tabpanel").filter(visible=True)
        shown.locator("input[type=file]").first.set_input_files(picture)
        shown.get_by_label("Labels, one a line").fill("red\nblue\ngreen")
        shown.get_by_role("button", name=button, exact=True).click()
        shown.locator(".plait-bars").nth(tables - 1).wait_for()
        first = shown.locator(".plait-bars").first
        shares = [float(text.rstrip("%")) for text in first.locator(".share").all_inner_texts()]
        assert sum(shares) == pytest.approx(100, abs=0.5) and len(shares) == 3
    page.get_by_text("Both say the same first.").wait_for()  # a copy of the first model


def test_chinese_on_a_phone_by_keyboard(page: Any, url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{url}/page/en/")
    page.get_by_role("link", name="中文").focus()
    page.keyboard.press("Enter")
    words = page.get_by_label("要找的文字")
    words.wait_for()
    for _ in range(20):  # reached by Tab alone
        if words.evaluate("one => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.type("红色的圆")
    page.keyboard.press("Enter")
    page.wait_for_selector(".plait-hits img")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
