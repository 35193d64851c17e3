"""No command reports to anybody: counted where every name lookup and connection is seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from plait.core import telemetry

NETWORK = Path(__file__).with_name("network.py")
NAMESPACES = ["unshare", "--map-root-user", "--net", "--mount"]
PLAIT = [sys.executable, "-m", "plait.cli.main"]


def can_be_apart() -> bool:
    """Whether this machine allows namespaces without being root."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode == 0


apart = pytest.mark.skipif(not can_be_apart(), reason="no namespaces of one's own on this machine")


def reached(tmp_path: Path, *command: str) -> list[str]:
    """What a command, which must succeed, tried to reach."""
    report = tmp_path / "report"
    free = {name: value for name, value in os.environ.items() if name not in telemetry.VARIABLES}
    done = subprocess.run(
        [*NAMESPACES, sys.executable, str(NETWORK), str(report), *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=free,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return [json.loads(line) for line in report.read_text().splitlines()]


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    for name in telemetry.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    telemetry.switch_off()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert sys.modules["openvino_telemetry"] is sys


@apart
def test_the_count_sees_lookups_and_connections(tmp_path: Path) -> None:
    code = """
import contextlib, socket, subprocess
for host in ("a.example", "127.0.0.1", "localhost"):
    with contextlib.suppress(OSError):
        socket.create_connection((host, 9), timeout=1)
with contextlib.suppress(OSError):
    socket.socket().connect(("192.0.2.1", 80))
subprocess.run(["getent", "hosts", "native.example"])
"""
    found = reached(tmp_path, sys.executable, "-c", code)
    assert {"a.example", "('192.0.2.1', 80)", "native.example"} <= set(found)
    assert not any("127." in one or "localhost" in one for one in found)


LOADERS = """
import sys, time
from plait.core.telemetry import silenced_onnxruntime
from plait.runtime.sessions import import_openvino
import_openvino()
silenced_onnxruntime()
if "all" in sys.argv:
    from plait.compression.nncf_int8 import _nncf
    from plait.serving.page.page import require_gradio
    _nncf()
    require_gradio()
time.sleep(2)  # they report from threads
"""


@apart
def test_engines_report_to_nobody(tmp_path: Path) -> None:
    assert reached(tmp_path, sys.executable, "-c", LOADERS) == []


@apart
@pytest.mark.slow
def test_libraries_report_to_nobody(tmp_path: Path) -> None:
    assert reached(tmp_path, sys.executable, "-c", LOADERS, "all") == []


COMMANDS = """
set -e
for name in $(plait --help | grep -oE '^. [a-z]+ ' | tr -d '│ '); do plait $name --help > /dev/null; done
plait doctor > /dev/null || true
plait recipes > /dev/null
plait data inspect base > /dev/null
plait data audit base > /dev/null || true
plait train scratch --data base --out run --set stages.0.epochs=1 --set stages.0.batch_size=8
plait evaluate run --data base > /dev/null
plait index run --data base --out index > /dev/null
plait search index "a red square" > /dev/null
plait classify run base/0.png --labels red,blue > /dev/null
plait embed run --data base --out rows > /dev/null
plait export run --out bundle > /dev/null
plait bench bundle > /dev/null
plait serve bundle --index index --page --port 8123 & pid=$!
for i in $(seq 240); do
  python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8123/readyz')" && break
  sleep 0.5
done
python - <<'CODE'
import json, urllib.request as u
body = json.dumps({"input": "a red square"}).encode()
asked = u.Request("http://127.0.0.1:8123/v1/embeddings", body, {"Content-Type": "application/json"})
assert u.urlopen(asked).status == 200
assert u.urlopen("http://127.0.0.1:8123/page/en/").status == 200
CODE
kill $pid; wait $pid
"""


@apart
@pytest.mark.slow
def test_commands_report_to_nobody(tmp_path: Path) -> None:
    folder, tools = tmp_path / "base", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    for name, command in (("plait", PLAIT), ("python", [sys.executable])):
        (tools / name).write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        (tools / name).chmod(0o755)
    rows = ["file_name,text"]
    for place in range(24):
        colour = "red" if place % 2 else "blue"
        Image.new("RGB", (32, 32), colour).save(folder / f"{place}.png")
        rows.append(f"{place}.png,a {colour} square {place}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    script = f'PATH="{tools}:$PATH"\n{COMMANDS}'
    assert reached(tmp_path, "bash", "-c", script) == []
