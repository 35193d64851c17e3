"""Search of a served index by a bundle of the model that made it, without torch."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.serving.made import DIM, MODEL, encoded, image_row, noisy, text_row

from plait.core.errors import UserError
from plait.retrieval.lance import LanceStore
from plait.retrieval.manifest import Manifest
from plait.retrieval.store import Row
from plait.serving.app import create_app
from plait.serving.settings import Settings
from plait.serving.worker import build_service


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve noisy pictures, the odd ones of the split "test"."""
    folder = tmp_path_factory.mktemp("index")
    rows = []
    for number in range(12):
        path = folder / f"{number}.png"
        path.write_bytes(encoded(noisy(number)))
        split = "test" if number % 2 else "train"
        vector = image_row(noisy(number)).astype(np.float32)
        rows.append(
            Row(f"p{number}", vector, "image", ("noise",), str(path), None, {"split": split})
        )
    LanceStore(folder, DIM, create=True).upsert(rows)
    Manifest(dim=DIM, model=MODEL, columns=("split",), modalities=("image",)).save(folder)
    return folder


@pytest.fixture(scope="module")
def searching(settings: Settings, index: Path) -> Iterator[TestClient]:
    service = build_service(replace(settings, index=str(index)))
    with TestClient(create_app(service)) as made:
        yield made


def expected(row: np.ndarray, numbers: range) -> list[str]:
    scores = {f"p{number}": float(image_row(noisy(number)) @ row) for number in numbers}
    return sorted(scores, key=scores.__getitem__, reverse=True)


def test_by_words_and_by_a_picture(searching: TestClient) -> None:
    reply = searching.post("/v1/search", json={"query": "red picture", "k": 5})
    assert reply.status_code == 200, reply.text
    hits = reply.json()["data"]
    assert [hit["id"] for hit in hits] == expected(text_row("red picture"), range(12))[:5]
    assert hits[0]["score"] == pytest.approx(
        float(image_row(noisy(int(hits[0]["id"][1:]))) @ text_row("red picture")), abs=1e-5
    )
    url = f"data:image/png;base64,{base64.b64encode(encoded(noisy(7))).decode()}"
    (hit,) = searching.post("/v1/search", json={"query": url, "k": 1}).json()["data"]
    assert (hit["id"], hit["score"]) == ("p7", pytest.approx(1.0, abs=1e-5))


def test_filters_and_thumbnails_but_no_paths(searching: TestClient) -> None:
    value = {"query": "blue", "k": 3, "where": "split = 'test'", "thumbnails": True}
    hits = searching.post("/v1/search", json=value).json()["data"]
    assert [hit["id"] for hit in hits] == expected(text_row("blue"), range(1, 12, 2))[:3]
    for hit in hits:
        assert "path" not in hit
        assert hit["metadata"]["split"] == "test"
        assert base64.b64decode(hit["thumbnail"].partition(",")[2]).startswith(b"\xff\xd8")


def test_what_does_not_fit(searching: TestClient) -> None:
    for value in (
        {"query": "blue", "where": "splitt = 'test'"},
        {"query": "blue", "where": "split ="},
        {"query": "blue", "k": 0},
        {"query": "blue", "k": 10**9},
        {"query": "blue", "find": "sound"},
    ):
        reply = searching.post("/v1/search", json=value)
        assert reply.status_code == 400, value
        assert reply.json()["error"]["message"]


def test_an_index_of_another_model(settings: Settings, index: Path, tmp_path: Path) -> None:
    LanceStore(tmp_path, DIM, create=True)
    Manifest(dim=DIM, model="another").save(tmp_path)
    with pytest.raises(UserError, match="another"):
        build_service(replace(settings, index=str(tmp_path)))


def test_a_worker_with_an_index_never_loads_torch(settings: Settings, index: Path) -> None:
    code = f"""
import sys
from plait.serving.settings import Settings
from plait.serving.worker import build_service, load_libraries
settings = Settings.from_json({replace(settings, index=str(index)).to_json()!r})
load_libraries(settings)
build_service(settings)
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"
