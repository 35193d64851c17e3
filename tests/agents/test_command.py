"""`plait agent` and `plait mcp` as installed: a whole task, exit codes, messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.agents.conftest import Tiny
from tests.agents.scripted import calls, scripted, words

PLAIT = str(Path(sys.executable).with_name("plait"))


def plait(*arguments: object, code: int) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PLAIT, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def test_a_task_through_a_server_that_is_a_command(tiny: Tiny, tmp_path: Path) -> None:
    """The command talks to `plait mcp`, which it starts, and to the endpoint."""
    picture = tiny.pictures / "red_00.png"
    server = f"{PLAIT} mcp {tiny.teller} --root {tiny.pictures}"
    transcript = tmp_path / "out.md"
    with scripted(
        calls(("ask", {"image": "image:1", "question": "what colour is it?"})), words("red")
    ) as script:
        reach = ["--endpoint", script.url, "--model", "parrot", "--transcript", transcript]
        done = plait(
            *["agent", "Which colour?", "--image", picture, "--server", server, *reach, "--json"],
            code=0,
        )
    record = json.loads(done.stdout)
    assert (record["status"], record["answer"]) == ("answered", "red")
    assert json.loads(record["steps"][0]["calls"][0]["result"])["answer"] == "red"
    assert transcript.is_file()


def test_unreachable_endpoint(tiny: Tiny, tmp_path: Path) -> None:
    transcript = tmp_path / "out.md"
    run = ["--mcp-run", tiny.finder, "--transcript", transcript, "--model", "parrot"]
    url = "http://127.0.0.1:9/v1"
    said = plait("agent", "Which colour?", *run, "--endpoint", url, code=2).stderr
    assert f"EndpointError: cannot reach the endpoint {url}: " in said
    assert f"cannot reach the endpoint {url}" in transcript.read_text(encoding="utf-8")


def test_bad_input(tmp_path: Path) -> None:
    reach = ["--endpoint", "http://127.0.0.1:9/v1", "--model", "parrot"]
    gone = tmp_path / "gone.png"
    said = plait("agent", "x", "--image", gone, "--mcp-run", tmp_path, *reach, code=2).stderr
    assert f"{gone}: no such picture (--image)" in said
    assert "one of the two" in plait("agent", "x", *reach, code=2).stderr
    assert "nothing to serve" in plait("mcp", code=2).stderr
