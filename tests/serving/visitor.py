"""A server with the page, and a browser's part in it without a browser."""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Page:
    """A server in a process of its own: where it answers, its log, and its parent's number."""

    url: str
    log: Path
    parent: int


class Visitor:
    """Redirects are shown, cookies kept."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def get(self, path: str, body: dict[str, str] | None = None, **headers: str) -> tuple[int, str]:
        data = None if body is None else urllib.parse.urlencode(body).encode()
        status, text, url = self.ask("GET" if data is None else "POST", path, data, headers)
        return status, f"{url}\n{text}" if status == 200 else text

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> tuple[int, str, str]:
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with self.opener.open(request, timeout=120) as answer:
                return answer.status, answer.read().decode("utf-8", "replace"), answer.geturl()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace"), path
        except (ConnectionError, TimeoutError, urllib.error.URLError):  # not listening yet
            return 0, "", path

    def log_in(self, name: str, key: str, language: str = "en") -> int:
        return self.get(f"/page/{language}/login", {"username": name, "password": key})[0]

    def upload(self, data: bytes, **headers: str) -> tuple[int, str]:
        content, body = form(data)
        answer = self.ask(
            "POST",
            "/page/en/gradio_api/upload",
            body,
            {"Content-Type": content, **headers},
        )
        return answer[0], answer[1]

    def press(self, number: int, values: list[Any], **headers: str) -> tuple[int, str]:
        body = json.dumps({"fn_index": number, "data": values, "session_hash": "s"}).encode()
        path = "/page/en/gradio_api/run/predict"
        answer = self.ask("POST", path, body, {"Content-Type": "application/json", **headers})
        return answer[0], answer[1]

    def config(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("GET", "/page/en/config")[1]))


def form(data: bytes, name: str = "a.png") -> tuple[str, bytes]:
    """Content-Type and body of a form as browsers send one."""
    mark = "----WebKitFormBoundaryqKFqnVbXyZ012345"
    head = f'Content-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: image/png'
    body = f"--{mark}\r\n{head}\r\n\r\n".encode() + data + f"\r\n--{mark}--\r\n".encode()
    return f"multipart/form-data; boundary={mark}", body


def raw(url: str, method: str, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """A request whose path is sent as it is, without what libraries make of it."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
    connection._validate_path = lambda url: None  # type: ignore[attr-defined]
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def serving_page(*arguments: Any, key: str, log: Path) -> Iterator[Page]:
    """Ends with the server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("plait"), "serve", *arguments, "--page"]
    options = ["--port", str(port), "--engine", "onnxruntime"]
    environ = {**os.environ, "PLAIT_API_KEYS": f"ann:{key}", "PLAIT_TOWER_KEY": f"tower-{key}"}
    with log.open("wb") as target:
        process = subprocess.Popen([*command, *options], stderr=target, env=environ)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while Visitor(address).get("/readyz")[0] != 200:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield Page(address, log, process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=90)
