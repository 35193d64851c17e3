"""docs/clients.md: each snippet against a server, or what its package sends.

The frameworks are no part of the extra `test`. An interpreter that has them runs their snippets:

PLAIT_CLIENTS=VENV/bin/python pytest tests/serving/test_clients.py
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.serving.conftest import KEY
from tests.serving.made import text_row
from tests.serving.visitor import Page

DOCUMENT = Path(__file__).parents[2] / "docs/clients.md"
TEXTS = ["a red fruit", "a blue bird"]
CLIENTS = os.environ.get("PLAIT_CLIENTS", sys.executable)
RECORDED = {"model": "bundle", "encoding_format": "base64"}
"""The request of langchain-openai 1.7.4 and of llama-index-embeddings-openai-like 0.4.0, both through
openai 3.57.0, beside ``input``: a list, of one text for a query."""


def snippet(package: str) -> str:
    """The one that imports a package."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [one for one in blocks if re.search(rf"^(?:from|import) {package}\b", one, re.M)]
    return str(found)


def run(page: Page, code: str, told: str, python: str = sys.executable) -> Any:
    """What the snippet has at its end, in a process of its own."""
    for ours, theirs in (
        ("http://127.0.0.1:8000", page.url),
        ('"bundle"', '"tiny"'),
        ('api_key="none"', f'api_key="{KEY}"'),
        ('"Content-Type"', f'"Authorization": "Bearer {KEY}", "Content-Type"'),
    ):
        code = code.replace(ours, theirs)
    code += f"\nimport json\nprint(json.dumps({told}))"
    command = [python, "-W", "ignore", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(texts: list[str]) -> Any:
    return pytest.approx(np.stack([text_row(one) for one in texts]), abs=1e-5)


@pytest.mark.parametrize("package", ["langchain_openai", "llama_index.embeddings.openai_like"])
def test_embeddings_by_a_framework(request: pytest.FixtureRequest, package: str) -> None:
    name = package.partition(".")[0]
    asked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    if subprocess.run([CLIENTS, "-c", asked], check=False).returncode:
        pytest.skip(f"{name} is not installed: its requests are sent by another test")
    page = request.getfixturevalue("page")
    found = run(page, snippet(package), "[*rows, row]", CLIENTS)
    assert np.asarray(found) == rows_of([*TEXTS, TEXTS[0]])


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]], ids=["documents", "query"])
def test_what_a_framework_sends_is_answered(client: TestClient, texts: list[str]) -> None:
    reply = client.post("/v1/embeddings", json={**RECORDED, "model": "tiny", "input": texts})
    assert reply.status_code == 200, reply.text
    rows = [
        np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in reply.json()["data"]
    ]
    assert np.stack(rows) == rows_of(texts)


def test_a_gradio_page_of_ones_own(page: Page) -> None:
    names = run(page, snippet("gradio"), "[[told, *shown.size] for shown, told in search('blue')]")
    assert len(names) == 6 and all(told == "noise" and size == [8, 8] for told, *size in names)
