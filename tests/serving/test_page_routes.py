"""docs/page-routes.md: every route of the page and of Gradio, asked in three ways.

PLAIT_WRITE=1 pytest tests/serving/test_page_routes.py     # writes the table
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gradio
import pytest
from tests.serving.conftest import KEY
from tests.serving.made import encoded, noisy
from tests.serving.page.test_guard import guest  # noqa: F401
from tests.serving.visitor import Page, Visitor, form

from plait.serving.page.guard import PageGuard

DOCUMENT = Path(__file__).parents[2] / "docs/page-routes.md"
FRONTEND = Path(gradio.__file__).parent / "templates/frontend"
WAYS = ("without a login", "with a wrong key", "with a key")
# In a process of its own: Gradio leaves event loops unclosed.
LIST = """
import json, gradio
from fastapi import FastAPI
from fastapi.routing import APIRoute
app = gradio.mount_gradio_app(FastAPI(), gradio.Blocks(), path="/page", mcp_server=False)
found, left = set(), list(app.routes[-1].app.router.routes)
while left:
    one = left.pop()
    if hasattr(one, "methods"):
        found |= {(method, one.path) for method in one.methods}
    else:
        inner = getattr(one, "original_router", getattr(one, "app", None))
        left += inner.routes
print(json.dumps(sorted(found)))
"""


@pytest.fixture(scope="module")
def library() -> list[tuple[str, str]]:
    """Method and path of every route that Gradio has."""
    command = [sys.executable, "-W", "ignore", "-c", LIST]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [(method, path) for method, path in json.loads(told.splitlines()[-1])]


@pytest.fixture(scope="module")
def visitors(page: Page, guest: Visitor) -> list[Visitor]:  # noqa: F811
    """One for each way; the second tried to log in."""
    stranger, guesser = Visitor(page.url), Visitor(page.url)
    assert guesser.log_in("ann", f"{KEY}-wrong") == 400
    return [stranger, guesser, guest]


def own() -> list[tuple[str, str]]:
    guard = object.__new__(PageGuard)  # its routes are asked for, nothing behind them
    return [(method, one.path) for one in guard.routes() for method in sorted(one.methods or ())]


def asked(visitor: Visitor, way: int, method: str, path: str, picture: str) -> int:
    """The status of a request that does what the route is for."""
    headers = {"Authorization": f"Bearer {KEY}-wrong"} if way == 1 else {}
    body = None
    if path == "/login":
        return visitor.log_in("ann", ("", f"{KEY}-wrong", KEY)[way])
    if path.endswith("/upload"):
        return visitor.upload(encoded(noisy(1)), **headers)[0]
    if path.endswith("/run/predict"):
        values = ["", {"path": picture}, 3, ""]
        return visitor.press(0, values, **headers)[0]
    if method not in ("GET", "HEAD"):
        headers["Content-Type"], body = form(encoded(noisy(1)))
    files = {"assets": next((FRONTEND / "assets").glob("*.js")).name, "static": "img/logo.svg"}
    folder = path.split("/")[1]
    filled = path.replace("{file:path}", files.get(folder, "")).replace(
        "file={name}", f"file={picture}"
    )
    filled = re.sub(r"\{[^}]*:path\}", "/etc/passwd", filled)
    filled = re.sub(r"\{[^}]*\}", "1", filled)
    return visitor.ask(method, f"/page/en{filled}", body, headers)[0]


def row(method: str, path: str, statuses: list[int]) -> str:
    return f"| {method} | `{path}` | {' | '.join(map(str, statuses))} |"


def table(visitors: list[Visitor], routes: list[tuple[str, str]]) -> list[str]:
    status, text = visitors[2].upload(encoded(noisy(0)))
    assert status == 200
    (picture,) = json.loads(text)
    lines = [f"| | below `/page/en` or `/page/zh` | {' | '.join(WAYS)} |", "|---|---|---|---|---|"]
    for method, path in routes:
        statuses = [asked(one, way, method, path, picture) for way, one in enumerate(visitors)]
        lines.append(row(method, path, statuses))
    return lines


def test_the_table_is_what_the_server_does(
    visitors: list[Visitor], library: list[tuple[str, str]]
) -> None:
    admitted = own()
    assert len(library) > 60 and ("POST", "/gradio_api/queue/join") in library
    names = {(method, re.sub(r"\{.*\}", "{}", path)) for method, path in admitted}
    others = [
        (method, path)
        for method, path in library
        if (method, re.sub(r"\{.*\}", "{}", path)) not in names
    ]
    shown = [(method, path) for method, path in admitted if method != "HEAD"]
    first, second = table(visitors, shown), table(visitors, others)
    assert all(re.search(r"(\| 40[45] ){3}\|$", line) for line in second[2:]), second
    lines = [
        "# Routes of the page",
        "",
        "What a server with API keys answers below `/page/en` (and `/page/zh`) to each route, asked "
        "for what it does; HEAD as GET. Written and checked by `tests/serving/test_page_routes.py`.",
        "",
        "## Admitted",
        "",
        *first,
        "",
        "`/`, `/theme.css`, `/assets` and `/static` are the page's drawing: files of Gradio as "
        "everyone can install it, and the form of the login. `/login` takes a name and a key; "
        "`/gradio_api/file={name}` gives a picture that was uploaded, to those who know its name "
        "of 64 random digits.",
        "",
        "## Not admitted",
        "",
        f"The other routes of Gradio {gradio.__version__}.",
        "",
        *second,
    ]
    text = "\n".join(lines) + "\n"
    if os.environ.get("PLAIT_WRITE") == "1":
        DOCUMENT.write_text(text, encoding="utf-8")
    known = DOCUMENT.read_text(encoding="utf-8")
    if f"Gradio {gradio.__version__}." in known:
        assert known == text
    else:  # another release has other routes, all of them refused above
        assert known.partition("## Not")[0] == text.partition("## Not")[0]


def test_the_files_of_the_drawing_and_no_others(visitors: list[Visitor]) -> None:
    for folder in ("assets", "static"):
        files = sorted(one for one in (FRONTEND / folder).rglob("*") if one.is_file())
        for one in files[:: max(1, len(files) // 20)]:
            name = f"{folder}/{one.relative_to(FRONTEND / folder).as_posix()}"
            assert visitors[0].ask("GET", f"/page/en/{name}")[0] == 200, name
    for name in ("index.html", "gradio.js", "assets", "assets/", "static/", "static/none", ".env"):
        assert visitors[2].ask("GET", f"/page/en/{name}")[0] == 404, name
