"""`plait search` through a server: the same answer, and what it says when there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from plait.cli.asked import ask_server
from plait.core.errors import PlaitError, UserError

HIT = {"rank": 1, "id": "p1", "score": 0.5, "text": "a red circle", "texts": ["a red circle"]}


class Answers(HTTPServer):
    status, body = 200, json.dumps({"data": [HIT], "note": "unread"}).encode()
    asked: list[tuple[str, dict, str | None]]


@pytest.fixture
def server() -> Iterator[Answers]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append((self.path, body, self.headers["Authorization"]))
            self.send_response(served.status)
            self.end_headers()
            self.wfile.write(served.body)

        def log_message(self, *_: object) -> None:
            pass

    served = Answers(("127.0.0.1", 0), Handler)
    served.asked = []
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def url(server: Answers) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def run(*arguments: str, **environment: str) -> tuple[str, str]:
    """(what stands on standard error, standard output)."""
    command = [sys.executable, "-m", "plait", "search", *arguments]
    known = {name: value for name, value in os.environ.items() if name != "PLAIT_SERVER"}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**known, **environment}, check=False
    )
    assert done.returncode == (2 if "Error" in done.stderr else 0), done.stderr
    return done.stderr, done.stdout


def test_words_alone_go_to_the_server(server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_API_KEY", "secret")
    asked = ("data:x//", "-k", "3", "--where", "year > 2", "--json")
    here = url(server)
    for problem, out in (run(*asked, "--server", here), run(*asked, PLAIT_SERVER=here)):
        assert problem.strip() == "note: unread"
        assert json.loads(out) == [{**HIT, "path": None, "outside": False, "note": "unread"}]
    query = {"type": "text", "text": "data:x//"}
    wanted = ("/v1/search", {"query": query, "k": 3, "where": "year > 2"}, "Bearer secret")
    assert server.asked == [wanted, wanted]


def test_a_picture_goes_as_a_data_url(server: Answers, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    problem, _ = run("--image", str(tmp_path / "a.png"), "--server", url(server))
    assert problem.strip() == "note: unread"
    assert server.asked[0][1]["query"] == "data:image/png;base64,iVBORw=="


def test_an_index_is_searched_here_although_a_server_is_known(
    server: Answers, tmp_path: Path
) -> None:
    problem, _ = run(str(tmp_path), "words", PLAIT_SERVER=url(server))
    assert "no index of plait" in problem
    assert server.asked == []


def test_what_a_server_cannot_do_is_refused(server: Answers) -> None:
    for more in (("index", "words"), ("words", "--sheet", "a.png"), ("words", "--rerank", "run")):
        problem, _ = run(*more, "--server", url(server))
        assert "its own index" in problem
    problem, _ = run()
    assert "name an index" in problem
    assert server.asked == []


def test_refusals_and_failures_are_told(server: Answers) -> None:
    server.body = json.dumps({"error": {"message": "no index" + "x" * 5000}}).encode()
    for status, kind in ((404, UserError), (429, PlaitError), (503, PlaitError)):
        server.status = status
        with pytest.raises(kind, match=rf"status {status}: no index") as caught:
            ask_server(url(server), "words", None, k=1, where=None)
        assert type(caught.value) is kind
        assert len(str(caught.value)) < 500
    server.status, server.body = 200, b"<html>" + b"x" * 5000
    with pytest.raises(PlaitError, match="something else than plait") as caught:
        ask_server(url(server), "words", None, k=1, where=None)
    assert len(str(caught.value)) < 500


def test_no_server(server: Answers) -> None:
    with pytest.raises(UserError, match="give http://host:port"):
        ask_server("localhost:8000", "words", None, k=1, where=None)
    with pytest.raises(PlaitError, match="cannot be reached"):
        ask_server("http://127.0.0.1:1", "words", None, k=1, where=None)
