"""docs/clients.md: each snippet against a server, or what its package sends."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.serving.conftest import KEY
from tests.serving.made import DIM, text_row
from tests.serving.visitor import Page

DOCUMENT = Path(__file__).parents[2] / "docs/clients.md"
TEXTS = ["a red fruit", "a blue bird"]


def snippet(package: str) -> str:
    """The one that imports a package."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [one for one in blocks if re.search(rf"^(?:from|import) {package}\b", one, re.M)]
    return str(found)


def run(page: Page, code: str, told: str) -> Any:
    """What the snippet has at its end, in a process of its own."""
    for ours, theirs in (
        ("http://127.0.0.1:8000", page.url),
        ('"bundle"', '"tiny"'),
        ('api_key="none"', f'api_key="{KEY}"'),
        ('"Content-Type"', f'"Authorization": "Bearer {KEY}", "Content-Type"'),
    ):
        code = code.replace(ours, theirs)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        f"{code}\nimport json\nprint(json.dumps({told}))",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("langchain_openai", "langchain_openai"),
        ("llama_index", "llama_index.embeddings.openai_like"),
    ],
)
def test_embeddings_by_a_framework(page: Page, package: str, module: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: its requests are sent by the next test")
    found = run(page, snippet(module), "[*rows, row]")
    assert found == pytest.approx(np.stack([text_row(one) for one in [*TEXTS, TEXTS[0]]]), abs=1e-5)


RECORDED: dict[str, dict[str, Any]] = {}


@pytest.mark.parametrize("name", list(RECORDED))
def test_what_a_framework_sends_is_answered(client: TestClient, name: str) -> None:
    body = json.loads(json.dumps(RECORDED[name]).replace('"bundle"', '"tiny"'))
    reply = client.post("/v1/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    rows = [one["embedding"] for one in reply.json()["data"]]
    if body.get("encoding_format") == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    asked = body["input"] if isinstance(body["input"], list) else [body["input"]]
    assert np.shape(rows) == (len(asked), DIM)
    assert np.asarray(rows) == pytest.approx(np.stack([text_row(one) for one in asked]), abs=1e-5)


def test_a_gradio_page_of_ones_own(page: Page) -> None:
    names = run(page, snippet("gradio"), "[[told, *shown.size] for shown, told in search('blue')]")
    assert len(names) == 6 and all(told == "noise" and size == [8, 8] for told, *size in names)
