"""What a web page of another site can make a browser send, odd Host headers, and guessed keys."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Headers
from tests.serving.conftest import KEY

from plait.serving.base.errors import RequestError
from plait.serving.base.settings import Settings
from plait.serving.http import security
from plait.serving.http.app import create_app
from plait.serving.http.origins import check_origin, host_of
from plait.serving.http.security import Guesses
from plait.serving.process.worker import build_service

EMBED = "/v1/embeddings"
GOOD = "https://good.example"


@pytest.fixture(scope="module")
def listing(settings: Settings) -> Iterator[TestClient]:
    """Without keys, for the pages of one origin."""
    with TestClient(create_app(build_service(replace(settings, cors=(GOOD,))))) as made:
        yield made


@pytest.fixture(scope="module")
def keyed(settings: Settings) -> Iterator[TestClient]:
    settings = replace(settings, local_only=False)
    with TestClient(create_app(build_service(settings), keys={"anna": KEY})) as made:
        yield made


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://testserver.evil.example"},
        {"Origin": "http://testserver:1234"},
        {"Origin": "file://testserver"},
        {"Origin": f"{GOOD}.evil.example"},
        {"Origin": f"{GOOD}:8443"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "anything"},
    ],
)
def test_pages_of_other_sites_make_it_do_nothing(
    listing: TestClient, headers: dict[str, str]
) -> None:
    before = listing.app.state.service.metrics.text()  # type: ignore[attr-defined]
    for content in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        reply = listing.post(
            EMBED, content=b'{"input": "a"}', headers={**headers, "Content-Type": content}
        )
        assert reply.status_code == 403, content
        assert reply.json()["error"]["code"] == "foreign_origin"
    form = listing.post(EMBED, files={"input": b"a"}, headers=headers)
    assert form.status_code == 403
    for path in (EMBED, "/v1/models", "/metrics", "/openapi.json", "/page/en/"):
        assert listing.get(path, headers=headers).status_code == 403
    after = listing.app.state.service.metrics.text()  # type: ignore[attr-defined]
    count = [line for line in before.splitlines() if line.startswith(b"plait_inputs_total")]
    assert count == [line for line in after.splitlines() if line.startswith(b"plait_inputs_total")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": GOOD},
        {"Origin": GOOD, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://testserver"},  # a proxy ended the TLS
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_own_and_listed_pages_are_served(listing: TestClient, headers: dict[str, str]) -> None:
    assert listing.post(EMBED, json={"input": "red"}, headers=headers).status_code == 200
    assert listing.get("/v1/models", headers=headers).status_code == 200


def test_links_may_be_followed_but_nothing_framed() -> None:
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    check_origin("GET", Headers({**linked, "sec-fetch-dest": "document"}), ())
    for method, dest in (("POST", "document"), ("GET", "iframe"), ("GET", "embed")):
        with pytest.raises(RequestError):
            check_origin(method, Headers({**linked, "sec-fetch-dest": dest}), ())
    check_origin("POST", Headers({"origin": "https://any.example"}), ("*",))
    twice = Headers(raw=[(b"origin", b"https://a"), (b"origin", b"https://a")])
    with pytest.raises(RequestError):
        check_origin("POST", twice, ("https://a",))


def test_asking_for_leave_first(listing: TestClient, client: TestClient) -> None:
    asking = {"Access-Control-Request-Method": "POST"}
    allowed = listing.options(EMBED, headers={**asking, "Origin": GOOD})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == GOOD
    for server in (listing, client):
        evil = server.options(EMBED, headers={**asking, "Origin": "https://evil.example"})
        assert evil.status_code in (400, 403)
        assert "access-control-allow-origin" not in evil.headers


def test_every_answer_says_what_browsers_may_do(client: TestClient, keyed: TestClient) -> None:
    replies = [
        client.get("/healthz"),
        client.get("/nothing"),
        client.post(EMBED, json={"input": "red"}),
        client.post(EMBED, content=b"{"),
        client.get("/healthz", headers={"Host": "evil.example"}),
        keyed.get("/v1/models"),
    ]
    assert [reply.status_code for reply in replies] == [200, 404, 200, 415, 403, 401]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["referrer-policy"] == "same-origin"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8000", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:65535", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("my_host-1.example", "my_host-1.example"),
    ],
)
def test_hosts(host: str, name: str) -> None:
    assert host_of(Headers({"host": host})) == name


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost:",
        "localhost:0",
        "localhost:00080",
        "localhost:65536",
        "localhost:999999",
        "localhost:80a",
        "localhost:+80",
        "localhost: 80",
        "localhost:80@evil.example",
        "localhost:80:80",
        "evil@localhost",
        "user:pass@localhost",
        "localhost.",
        ".localhost",
        "local..host",
        "localhost/evil",
        "localhost?a",
        "localhost#a",
        "localhost\\evil",
        "localhost,evil.example",
        "localhost evil.example",
        "http://localhost",
        "::1",
        "[::1",
        "::1]",
        "[::1]evil",
        "[::1]:",
        "[fe80::1%25eth0]",
        "[1.2.3.4.5]",
        "[localhost]",
        "[:::]",
        "%6cocalhost",
        "lócalhost",
        "localhost\t",
    ],
)
def test_odd_hosts_are_no_hosts(client: TestClient, host: str) -> None:
    with pytest.raises(RequestError) as caught:
        host_of(Headers({"host": host}))
    assert caught.value.status == 400
    reply = client.get("/healthz", headers={"Host": host.encode("latin-1")})
    assert reply.status_code == 400


def test_several_hosts_are_no_host() -> None:
    twice = Headers(raw=[(b"host", b"localhost"), (b"host", b"localhost")])
    for headers in (twice, Headers()):
        with pytest.raises(RequestError) as caught:
            host_of(headers)
        assert caught.value.status == 400


def test_wrong_keys_wait_and_right_ones_never(
    keyed: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "_LONGEST_DELAY", 0.01)
    threads = threading.active_count()
    found = []
    for number in range(12):
        reply = keyed.get("/v1/models", headers={"Authorization": f"Bearer wrong-{number:020}"})
        found.append((reply.status_code, reply.headers.get("retry-after")))
        right = keyed.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        assert right.status_code == 200
    assert found[:5] == [(401, None)] * 5
    assert found[5:] == [(429, str(seconds)) for seconds in (1, 2, 4, 8, 16, 32, 64)]
    # No key at all is no guess, and the probes stay open.
    assert keyed.get("/v1/models").status_code == 401
    assert keyed.get("/readyz").status_code == 200
    assert threading.active_count() <= threads + 1


def test_guesses_are_counted_by_client_and_forgotten() -> None:
    now = [0.0]
    guesses = Guesses(lambda: now[0])
    waits = [guesses.wrong("10.0.0.1") for _ in range(14)]
    assert waits == [0] * 5 + [1, 2, 4, 8, 16, 32, 64, 64, 64]
    assert guesses.wrong("10.0.0.2") == 0
    assert [guesses.wrong(f"2001:db8::{n}") for n in range(1, 8)] == [0] * 5 + [1, 2]
    now[0] += 1000
    assert guesses.wrong("10.0.0.1") == 0
    for number in range(10_000):
        guesses.wrong(f"10.{number >> 8}.{number & 255}.9")
    assert len(guesses) <= 4096
    for _ in range(2000):  # no power of two is too large
        assert guesses.wrong("10.9.9.9") <= 64


def test_answers_to_wrong_keys_are_held_back_but_not_without_end() -> None:
    async def scenario() -> tuple[float, float]:
        guesses = Guesses()
        began = time.monotonic()
        await guesses.hold_back(0.4)
        one = time.monotonic() - began
        waiting = [asyncio.create_task(guesses.hold_back(64.0)) for _ in range(64)]
        await asyncio.sleep(0)
        began = time.monotonic()
        await guesses.hold_back(64.0)
        many = time.monotonic() - began
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return one, many

    one, many = asyncio.run(scenario())
    assert one >= 0.09
    assert many < 0.05


def test_the_application_is_told_of_no_foreign_host(client: TestClient) -> None:
    reply: Any = client.get("/healthz", headers={"Host": "x" * 5000})
    assert reply.status_code in (400, 403)
    assert len(reply.text) < 1000
