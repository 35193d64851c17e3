"""What the page admits: no path, no URL, nothing without a limit; and the table of its routes."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.serving.conftest import KEY, LIMITS
from tests.serving.made import encoded, noisy
from tests.serving.visitor import Page, Visitor, form, raw

from plait.serving.base.errors import RequestError
from plait.serving.http.app import HANDLERS
from plait.serving.http.security import Guesses
from plait.serving.page.guard import LOGIN_BYTES, RUN_BYTES, Button, PageGuard
from plait.serving.page.uploads import SHARE, Uploads, only_file
from plait.serving.page.words import WORDS

PNG = encoded(noisy(0))
GONE = WORDS["en"]["gone"]
API = "/page/en/gradio_api"


@pytest.fixture(scope="module")
def guest(page: Page) -> Visitor:
    """One who is logged in."""
    visitor = Visitor(page.url)
    assert visitor.log_in("ann", KEY) == 200
    return visitor


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture on the server's disk, so that one which was read would be shown or classified."""
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    (tmp_path / "link.png").symlink_to(path)
    os.mkfifo(tmp_path / "pipe.png")
    return path


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A web server of the machine with a picture, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(PNG)

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/a.png", asked
        server.shutdown()
        thread.join()


def paths(secret: Path, url: str) -> list[str]:
    """Ways to name a file or a URL."""
    plain, beside = str(secret), secret.parent
    return [
        plain,
        f"file://{plain}",
        f"file:{plain}",
        os.path.relpath(plain),
        f"../../../../../../../..{plain}",
        f"/tmp/gradio/../..{plain}",
        f"./{plain}",
        f"//{plain}",
        f"{plain}\0.png",
        f"{plain}/.",
        urllib.parse.quote(plain, safe=""),
        urllib.parse.quote(urllib.parse.quote(plain, safe=""), safe=""),
        plain.replace("/", "\\"),
        f"C:{plain}".replace("/", "\\"),
        "\\\\127.0.0.1\\share\\secret.png",
        str(beside / "link.png"),
        str(beside / "pipe.png"),
        str(beside),
        f"/proc/self/root{plain}",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/dev/stdin",
        "/etc/passwd",
        "~/.ssh/id_rsa",
        "~root",
        url,
        url.upper(),
        f"  {url}",
        url.replace("http:", "ftp:"),
        f"/gradio_api/file={plain}",
        f"{API}/file={plain}",
        f"data:text/plain,{plain}",
        "",
        ".",
        "x" * 5000,
    ]


def disguises(path: str) -> list[Any]:
    """Ways to put a name where a picture is expected."""
    meta = {"_type": "gradio.FileData"}
    whole = {"path": path, "meta": meta, "orig_name": path, "url": path, "is_stream": False}
    return [
        whole,
        {"path": path},
        {"path": "none", "url": path, "meta": meta},
        {"url": path, "meta": meta},
        {"path": None, "orig_name": path, "meta": meta},
        {"path": whole},
        {"path": [path]},
        {**whole, "is_stream": True},
        [whole],
        [[path]],
        {"image": whole},
        {"value": whole, "__type__": "update"},
        path or "none",
    ]


def buttons(guest: Visitor) -> list[tuple[int, list[Any], int]]:
    """Number, fitting values, and the place of the picture, of every button that takes one."""
    config = guest.config()
    parts = {one["id"]: one for one in config["components"]}
    found = []
    for one in config["dependencies"]:
        values: list[Any] = []
        for number in one["inputs"]:
            part = parts[number]
            value: Any = part["props"].get("value") or ""
            if part["type"] == "textbox" and "Labels" in (part["props"].get("label") or ""):
                value = "red\nblue"
            elif part["props"].get("label") == WORDS["en"]["question"]:
                value = "what colour"
            values.append(None if part["type"] == "image" else value)
        kinds = [parts[number]["type"] for number in one["inputs"]]
        if "image" in kinds:
            found.append((one["id"], values, kinds.index("image")))
    return found


def test_pictures_that_were_given_are_used_in_every_tab(guest: Visitor, client: TestClient) -> None:
    status, text = guest.upload(PNG)
    assert status == 200
    (name,) = json.loads(text)
    assert len(name) == 64 and "/" not in name
    kept = guest.ask("GET", f"{API}/file={name}")
    assert kept[0] == 200 and "PNG" in kept[1][:10]
    answers = []
    for number, values, place in buttons(guest):
        values[place] = {"path": name, "meta": {"_type": "gradio.FileData"}}
        status, text = guest.press(number, values)
        assert status == 200 and "plait-error" not in text, text
        answers.append(json.loads(text)["data"])
    assert len(answers) == 3  # search, classify, ask; there is one model, so nothing to compare
    assert "plait-hits" in answers[0][1] and "1.000" in answers[0][1]
    assert all("plait-bars" in one[0] for one in answers[1:])


def test_no_name_of_a_file_is_read_by_any_tab(
    guest: Visitor, secret: Path, elsewhere: tuple[str, list[str]]
) -> None:
    url, asked = elsewhere
    for tab, (number, values, place) in enumerate(buttons(guest)):
        for path in paths(secret, url):
            for value in disguises(path)[: 1 if tab else None]:
                values[place] = value
                status, text = guest.press(number, values)
                assert (status, GONE in text) == (200, True), (value, text[:300])
                assert "plait-bars" not in text and "plait-hits" not in text
    # Nor where a hit's key is expected, which names a row of the index and no file.
    config = guest.config()
    texts = [one for one in config["components"] if one["type"] == "textbox"]
    hidden = {one["id"] for one in texts if one["props"].get("visible") is False}
    keyed = [one for one in config["dependencies"] if hidden.intersection(one["inputs"][:1])]
    assert len(keyed) == 2  # the picture itself, and more like it
    for one in keyed:
        for path in paths(secret, url):
            for value in (path, {"path": path}, [path], f"image/0/{path}"):
                status, text = guest.press(one["id"], [value, *[12, ""][: len(one["inputs"]) - 1]])
                assert status == 200 and "plait-error" in text, (value, text[:300])
                assert "<img" not in text and "root:x" not in text
    # Nor where words are expected.
    number, values, place = buttons(guest)[1]
    for place, expected in enumerate(values):
        if isinstance(expected, str):
            for value in ({"path": str(secret)}, [str(secret)], 5, True, {"value": "x"}):
                status, text = guest.press(number, [*values[:place], value, *values[place + 1 :]])
                assert status == 200 and "cannot be" in text, text
    assert asked == []


def test_no_route_gives_a_file(
    page: Page, guest: Visitor, secret: Path, elsewhere: tuple[str, list[str]]
) -> None:
    url, asked = elsewhere
    cookies = "; ".join(f"{one.name}={one.value}" for one in guest.cookies)
    routes = [
        f"{API}/file=",
        f"{API}/file/",
        f"{API}/proxy=",
        f"{API}/custom_component/image/client/component/",
        f"{API}/stream/",
        "/page/en/file=",
        "/page/en/file/",
        "/page/en/assets/",
        "/page/en/static/",
        "/page/en/svelte/",
        "/page/en/assets/..",
        "/page/en/static/../",
        "/page/en/static//",
        "/page/en/assets/%2e%2e/",
        "/page/en/",
        "/page/",
    ]
    for route in routes:
        for path in paths(secret, url)[:-3]:
            for target in (path, urllib.parse.quote(path), urllib.parse.quote(path, safe="")):
                if any(ord(one) <= 32 for one in target):
                    continue  # no request line can hold it
                status, body = raw(page.url, "GET", route + target, {"Cookie": cookies})
                assert status in (400, 404, 405), (route + target, status)
                assert PNG[:8] not in body and b"root:x:0" not in body and b"PLAIT" not in body
    assert asked == []


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("deep_link=../../x", "/"),
        ("__theme=dark&page=none", "/"),
        ("all_endpoints=true", "/gradio_api/info"),
    ],
)
def test_questions_are_not_passed_on(guest: Visitor, query: str, same: str) -> None:
    plain = guest.ask("GET", f"/page/en{same}")
    asked = guest.ask("GET", f"/page/en{same}?{query}")
    assert asked[:2] == plain[:2] and asked[0] == 200


def test_no_secret_is_in_the_environment_of_a_process(page: Page) -> None:
    parent = psutil.Process(page.parent)
    processes = [parent, *parent.children(recursive=True)]
    assert len(processes) >= 2
    for one in processes:
        environ = Path(f"/proc/{one.pid}/environ").read_bytes()
        assert b"PATH=" in environ and KEY.encode() not in environ
        assert KEY not in " ".join(one.cmdline())
    assert KEY not in page.log.read_text()


# The guard alone, before an application that stands for Gradio's.


class Part:
    """Stands for a component of the page."""

    label, minimum, maximum = "count", 1, 60

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def get_block_name(self) -> str:
        return self.kind


class Drawing(Starlette):
    """Stands for Gradio: tells what reaches it, and knows one login."""

    tokens: dict[str | None, str]
    cookie_id = "id"

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.tokens = {}

        async def any_route(request: Any) -> JSONResponse:
            self.reached.append(str(request.url).removeprefix("http://testserver"))
            body = (await request.body()).decode()
            status = 200 if "key=right" in body or not body else 400
            answer = JSONResponse(dict(request.headers), status)
            if status == 200 and body:
                answer.set_cookie("access-token-id", "t", samesite="none", secure=True)
            return answer

        super().__init__(routes=[Route("/{all:path}", any_route, methods=["GET", "POST"])])


def guarded(client: TestClient, *, login: bool = False, uploads: int = 1 << 20) -> tuple[Any, ...]:
    """A client before a guard, its drawing, and what its one button was given."""
    given: list[Any] = []

    async def handler(*values: Any) -> str:
        given.append(values)
        return "done"

    parts = [Part("textbox"), Part("image"), Part("slider")]
    drawing = Drawing()
    guard = PageGuard(
        drawing,
        {0: Button(handler, parts, [Part("markdown"), Part("html")])},
        client.app.state.service,  # type: ignore[attr-defined]
        Uploads(uploads),
        guesses=Guesses() if login else None,
        say=WORDS["en"],
    )
    return TestClient(guard.application(HANDLERS)), drawing, given


def press(client: TestClient, value: Any, **headers: str) -> Any:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return client.post("/gradio_api/run/predict", content=body, headers=headers)


def test_presses_are_within_limits(client: TestClient) -> None:
    visitor, drawing, given = guarded(client)
    fit = {"fn_index": 0, "data": ["a", None, 3]}
    assert press(visitor, fit).json() == {"data": ["done"]}
    assert given == [("a", None, 3)]
    bad: list[tuple[Any, int]] = [
        (b"[" * 200_000 + b"]" * 200_000, 400),
        (b'{"fn_index":0,"data":["' + b"a" * RUN_BYTES + b'",null,3]}', 413),
        (b'{"fn_index":0,"data":[NaN,null,3]}', 400),
        (b"[" + b"0," * 30_000 + b"0]", 400),
        (b"", 400),
        ({**fit, "fn_index": 1}, 400),
        ({**fit, "fn_index": "0"}, 400),
        ({**fit, "fn_index": False}, 400),
        ({**fit, "data": ["a", None]}, 400),
        ({**fit, "data": {"0": "a"}}, 400),
        ([fit], 400),
        (None, 400),
    ]
    for body, status in bad:
        assert press(visitor, body).status_code == status, body[:60] if body else body
    for count in (0, 61, -1, 1e308, "3", None, True, [3], {}):
        told = press(visitor, {**fit, "data": ["a", None, count]}).json()["data"]
        assert told[0] == "" and "count cannot be" in told[1], count
    assert len(given) == 1 and drawing.reached == []


def test_a_body_without_a_length_is_bounded_too(client: TestClient) -> None:
    visitor, _, given = guarded(client)

    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * (RUN_BYTES // 20)

    assert press_parts(visitor, "/gradio_api/run/predict", parts()) == 413
    assert press_parts(visitor, "/login", parts()) == 413
    assert given == []


def press_parts(visitor: TestClient, path: str, parts: Iterator[bytes]) -> int:
    return int(visitor.post(path, content=parts).status_code)


def test_uploads_are_one_picture_within_limits(client: TestClient) -> None:
    visitor, drawing, _ = guarded(client)

    def upload(content: str, body: bytes) -> int:
        return int(
            visitor.post(
                "/gradio_api/upload", content=body, headers={"Content-Type": content}
            ).status_code
        )

    content, body = form(PNG)
    mark = content.partition("=")[2]
    assert upload(content, body) == 200
    assert upload(content, form(b"no picture")[1]) == 400
    assert upload(content, form(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg")[1]) == 400
    assert upload(content, body.replace(f"--{mark}--".encode(), b"") + body) == 400  # two files
    assert upload(content, body[:-10]) == 400
    assert upload(content, b"") == 400
    assert upload("multipart/form-data", body) == 415
    assert upload("multipart/form-data; boundary=" + "x" * 5000, body) == 400
    assert upload("application/json", body) == 415
    assert upload(content, b"--" + mark.encode() + b"-" * (1 << 19) + b"\r\n") == 400
    assert upload(content, form(PNG, "a" * 9000)[1]) == 400  # a head without end
    most = LIMITS.picture_bytes + (1 << 20)
    assert upload(content, form(PNG + bytes(most))[1]) == 413
    assert drawing.reached == []


def test_a_name_of_a_file_is_of_no_account() -> None:
    for name in ("../../x", "/etc/passwd", "a\0b", "C:\\x", ".bashrc", "名.png"):
        content, body = form(PNG, name)
        assert only_file(content, body) == PNG


def test_other_sites_may_not_ask(guest: Visitor) -> None:
    number, values, _ = buttons(guest)[1]
    for origin in ("http://evil.example", "null", f"{guest.url}.evil.example", f"{guest.url}1"):
        assert guest.press(number, values, Origin=origin)[0] == 403
        assert guest.upload(PNG, Origin=origin)[0] == 403
        assert (
            guest.get("/page/en/login", {"username": "ann", "password": KEY}, Origin=origin)[0]
            == 403
        )
    assert guest.press(number, values, Origin=guest.url)[0] == 200
    assert guest.upload(PNG, Origin=guest.url)[0] == 200


def test_gradio_is_told_little(client: TestClient) -> None:
    visitor, drawing, _ = guarded(client)
    headers = {"Origin": "http://testserver", "X-Forwarded-Host": "evil", "X-Gradio-User": "api"}
    answer = visitor.get("/config?deep_link=x", headers={**headers, "Accept-Language": "zh"})
    assert answer.json()["accept-language"] == "zh"
    assert {one.lower() for one in headers}.isdisjoint(answer.json())
    assert drawing.reached == ["/config"]


def test_guests_alone_do_and_see(client: TestClient) -> None:
    visitor, drawing, given = guarded(client, login=True)
    content, body = form(PNG)
    asks = [
        ("GET", "/config", b"", {}),
        ("GET", "/gradio_api/info", b"", {}),
        ("GET", "/gradio_api/file=x", b"", {}),
        ("POST", "/gradio_api/upload", body, {"Content-Type": content}),
        ("POST", "/gradio_api/run/predict", b'{"fn_index":0,"data":["a",null,3]}', {}),
    ]
    for cookie in ("", "access-token-id=guess", "access-token-id=", "access-token-=t"):
        for method, path, sent, headers in asks:
            answer = visitor.request(
                method, path, content=sent, headers={**headers, "Cookie": cookie}
            )
            assert answer.status_code == 401, path
    assert given == [] and drawing.reached == []
    drawing.tokens["t"] = "ann"
    for method, path, sent, headers in asks:
        headers = {**headers, "Cookie": "access-token-unsecure-id=t"}
        answer = visitor.request(method, path, content=sent, headers=headers)
        assert answer.status_code == (404 if "file=" in path else 200), path
    for number in range(5000):
        drawing.tokens[str(number)] = "ann"
    answer = visitor.post("/login", data={"key": "right"})
    assert answer.status_code == 200 and len(drawing.tokens) < 1001
    assert "samesite=lax" in answer.headers["Set-Cookie"].lower()


def test_wrong_keys_make_wait(client: TestClient) -> None:
    visitor, _, _ = guarded(client, login=True)
    answers = [visitor.post("/login", data={"key": "guess"}) for _ in range(7)]
    assert [one.status_code for one in answers] == [400] * 5 + [429] * 2
    assert [one.headers.get("Retry-After") for one in answers[4:]] == [None, "1", "2"]
    assert visitor.post("/login", data={"key": "right"}).status_code == 200
    assert visitor.post("/login", content=b"x" * (LOGIN_BYTES + 1)).status_code == 413


def test_the_oldest_pictures_go() -> None:
    async def scenario() -> None:
        uploads = Uploads(40 * 2048, seconds=0.2)  # 40 pictures of 1,024 bytes with their overhead
        own = [uploads.add("ann", bytes(1024)) for _ in range(12)]
        kept = [name for name in own if uploads.get(name) is not None]
        assert kept == own[-40 // SHARE :]  # a quarter for one client
        others = [uploads.add(f"client {number}", bytes(1024)) for number in range(60)]
        assert uploads.bytes <= 40 * 2048
        assert [uploads.get(name) is not None for name in others] == [False] * 20 + [True] * 40
        assert len({*own, *others}) == 72
        with pytest.raises(RequestError, match="pictures of up to 20,480 bytes"):
            uploads.add("ben", bytes(20_000))
        for wrong in (None, 1, "", others[0], others[-1][:-1], [others[-1]], {"a": 1}):
            assert uploads.get(wrong) is None
        await asyncio.sleep(0.4)
        assert uploads.bytes == 0 and uploads.get(others[-1]) is None

    asyncio.run(scenario())
