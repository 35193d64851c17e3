"""Keys, hosts, origins, and what may be fetched."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.serving.conftest import KEY
from tests.serving.made import encoded, noisy

from plait.core.errors import UserError
from plait.modalities.image.structure import kind_of
from plait.serving.base.errors import RequestError
from plait.serving.base.inputs import Input, image_input
from plait.serving.base.settings import Limits, Settings
from plait.serving.http.app import create_app
from plait.serving.http.security import Keys, read_keys
from plait.serving.process.run import named, read_limits, run_server
from plait.serving.process.worker import build_service
from plait.serving.service.fetch import Fetcher, Refused, is_public


@pytest.fixture(scope="module")
def guarded(settings: Settings) -> Iterator[TestClient]:
    settings = replace(settings, local_only=False, cors=("https://good.example",))
    with TestClient(create_app(build_service(settings), keys={"anna": KEY})) as made:
        yield made


def test_a_key_is_needed_for_all_but_the_probes(guarded: TestClient) -> None:
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
        reply = guarded.get(path)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert reply.json()["error"]["type"] == "authentication_error"
    for wrong in (f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer", "Bearer \xff"):
        reply = guarded.get("/v1/models", headers={"Authorization": wrong.encode("latin-1")})
        assert reply.status_code == 401
    for path in ("/healthz", "/readyz"):
        assert guarded.get(path).status_code == 200
    reply = guarded.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    assert reply.status_code == 200


def test_pages_of_other_origins_may_call_only_when_listed(
    guarded: TestClient, client: TestClient
) -> None:
    asking = {"Access-Control-Request-Method": "POST", "Authorization": f"Bearer {KEY}"}
    good = {"Origin": "https://good.example", "Authorization": f"Bearer {KEY}"}
    reply = guarded.get("/v1/models", headers=good)
    assert reply.headers["access-control-allow-origin"] == "https://good.example"
    evil = {**asking, "Origin": "https://evil.example"}
    assert "access-control-allow-origin" not in guarded.get("/v1/models", headers=evil).headers
    assert "access-control-allow-origin" not in client.get("/v1/models", headers=evil).headers


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the tests\nanna:{KEY}\n\n{KEY[::-1]}\n")
    keys = read_keys(file, {"PLAIT_API_KEYS": "ignored"})
    assert keys == {"anna": KEY, "key-2": KEY[::-1]}
    holders = Keys(keys)
    assert holders.holder(KEY) == "anna"
    assert holders.holder(KEY[::-1]) == "key-2"
    assert holders.holder(KEY[:-1]) is None
    assert read_keys(None, {"PLAIT_API_KEYS": f"ben:{KEY}, {KEY}2"}) == {
        "ben": KEY,
        "key-2": f"{KEY}2",
    }
    assert read_keys(None, {}) == {}


@pytest.mark.parametrize("text", ["", "# nothing\n", "anna:short", f"a:{KEY}\na:{KEY}1"])
def test_unfit_files_of_keys(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UserError):
        read_keys(file, {})
    with pytest.raises(UserError, match="cannot be read"):
        read_keys(tmp_path / "none", {})


def test_other_machines_are_not_let_in_by_accident(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLAIT_API_KEYS", raising=False)
    with pytest.raises(UserError, match="--no-keys"):
        run_server([bundle], host="0.0.0.0")
    with pytest.raises(UserError, match="no folder"):
        run_server([bundle / "none"])
    with pytest.raises(UserError, match="did you mean 'deadline'"):
        read_limits(["deadlin=3"])
    for wrong in ("deadline=-1", "queue=many", "queue=0", "deadline=nan", "deadline=inf"):
        with pytest.raises(UserError):
            read_limits([wrong])
    assert read_limits(["deadline=2.5", "queue=7"]) == Limits(deadline=2.5, queue=7)
    assert list(named([bundle, bundle])) == ["tiny", "tiny-2"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")


class Site(http.server.BaseHTTPRequestHandler):
    """A picture, redirects, and things that are too large, too slow, or no picture."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(404 if self.path == "/none" else 200)
        kind = "text/html" if self.path == "/page" else "image/png"
        self.send_header("Content-Type", kind)
        self.end_headers()
        try:
            if self.path == "/large":
                for _ in range(100):
                    self.wfile.write(b"x" * 10_000)
            elif self.path == "/slow":
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
            else:
                self.wfile.write(encoded(noisy(1)))
        except OSError:
            return  # the client had enough

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(url: str, fetcher: Fetcher) -> bytes:
    return fetcher.get(url, time.monotonic() + fetcher.seconds)


def open_fetcher(site: str, **options: object) -> Fetcher:
    settings: dict = {"max_bytes": 100_000, "seconds": 1.0, "allows": lambda address: True}
    return Fetcher([site.removeprefix("http://")], **{**settings, **options})


def test_a_picture_from_a_listed_host(site: str) -> None:
    fetcher = open_fetcher(site)
    assert fetch(f"{site}/a.png", fetcher) == encoded(noisy(1))
    assert fetch(f"{site}/to//a.png", fetcher) == encoded(noisy(1))
    fetcher.close()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/none", "status 404"),
        ("/page", "text/html"),
        ("/large", "more than"),
        ("/slow", "time|long"),
        ("/to/http://elsewhere.example/", "not among those"),
        ("/to/file:///etc/passwd", "only http"),
        ("/to/" * 9 + "/a.png", "redirects more"),
    ],
)
def test_what_is_not_fetched(site: str, path: str, reason: str) -> None:
    fetcher = open_fetcher(site, seconds=0.5)
    with pytest.raises(Refused, match=reason):
        fetch(f"{site}{path}", fetcher)
    fetcher.close()


def test_private_addresses_are_refused_after_resolution(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(site.rpartition(":")[2])
    fetcher = Fetcher([f"innocent.example:{port}"], max_bytes=1000)
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("8.8.8.8", "10.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
    with pytest.raises(Refused, match="private address"):
        fetch(f"http://innocent.example:{port}/a.png", fetcher)
    fetcher.close()


def test_a_second_answer_of_the_name_server_changes_nothing(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(site.rpartition(":")[2])
    asked: list[str] = []

    def resolve(host: str, *others: object, **options: object) -> list[tuple]:
        asked.append(host)
        ip = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    fetcher = Fetcher(
        [f"rebound.example:{port}"], max_bytes=10_000, allows=lambda ip: ip == "127.0.0.1"
    )
    assert fetch(f"http://rebound.example:{port}/a.png", fetcher) == encoded(noisy(1))
    assert asked == ["rebound.example"]
    fetcher.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@127.0.0.1/a.png",
        "ftp://127.0.0.1/a.png",
        "http:///a.png",
        "http://[::1/a.png",
        "http://127.0.0.1:99999/a.png",
        "http://sub.127.0.0.1/a.png",
    ],
)
def test_odd_urls(site: str, url: str) -> None:
    fetcher = open_fetcher(site)
    with pytest.raises(Refused):
        fetch(url, fetcher)
    fetcher.close()


def test_names_below_a_host() -> None:
    fetcher = Fetcher([".example.org"], max_bytes=1)
    assert fetcher._admitted("https://a.b.example.org/x")[1] == 443
    for url in (
        "https://badexample.org/",
        "https://example.org.evil/",
        "https://a.example.org:8443/",
    ):
        with pytest.raises(Refused):
            fetcher._admitted(url)
    fetcher.close()


def test_urls_are_off_by_default() -> None:
    one = Input("image", "https://example.org/a.png", "input[3]", remote=True)
    with pytest.raises(RequestError, match=r"input\[3\]: URLs are off"):
        asyncio.run(Fetcher([], max_bytes=1).fetched(one, 0.0, Limits()))


def test_kinds_of_pictures_by_their_first_bytes() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        assert (kind_of(encoded(noisy(0), kind)) or "").upper() == kind
    for data in (b"", b"%!PS-Adobe", b"<svg></svg>", b"\x00\x01\x02\x03", b"RIFF1234WAVE"):
        assert kind_of(data) is None
    with pytest.raises(RequestError, match="text/html"):
        image_input("data:text/html;base64,AAAA", "image", Limits())


def test_a_browser_asks_for_leave_without_a_key(guarded: TestClient) -> None:
    asking = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
    asking["Access-Control-Request-Headers"] = "authorization,content-type"
    reply = guarded.options("/v1/embeddings", headers=asking)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://good.example"
    refused = guarded.get("/v1/models", headers={"Origin": "https://good.example"})
    assert refused.status_code == 401  # which the page can read
    assert refused.headers["access-control-allow-origin"] == "https://good.example"
    evil = guarded.options("/v1/embeddings", headers={**asking, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in evil.headers


def test_headers_that_come_byte_by_byte_end_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def dribble() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nX: " + b"x" * 200:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)

        thread = threading.Thread(target=dribble, daemon=True)
        thread.start()
        site = f"http://127.0.0.1:{listening.getsockname()[1]}"
        fetcher = open_fetcher(site, seconds=0.5)
        began = time.monotonic()
        with pytest.raises(Refused, match="too long"):
            fetch(f"{site}/a.png", fetcher)
        assert time.monotonic() - began < 3
        fetcher.close()
        thread.join()
