"""Search of a served index by a bundle of the model that made it, without torch."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.serving.conftest import LIMITS
from tests.serving.made import DIM, MODEL, encoded, image_row, noisy, text_row

from plait.core.errors import UserError
from plait.retrieval.index.manifest import Manifest
from plait.retrieval.store.lance import LanceStore
from plait.retrieval.store.store import Row
from plait.serving.base.settings import Settings
from plait.serving.http.app import create_app
from plait.serving.process.worker import build_service
from plait.serving.service.search_process import OUTSIDE, sendable


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
    assert reply.json()["note"] is None
    unread = searching.post("/v1/search", json={"query": "一张红色的图片"}).json()
    assert "unknown" in unread["note"] and unread["data"]
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


def test_pictures_outside_are_not_shown_and_pipes_not_waited_for(
    settings: Settings, tmp_path: Path
) -> None:
    folder, secret = tmp_path / "index", tmp_path / "scan.png"
    folder.mkdir()
    secret.write_bytes(encoded(noisy(1)))
    (folder / "own.png").write_bytes(encoded(noisy(2)))
    (folder / "large.png").write_bytes(bytes(LIMITS.picture_bytes + 1))
    os.mkfifo(folder / "pipe.png")
    paths = ["../scan.png", str(secret), "own.png", "pipe.png", "large.png", "gone.png", None]
    big = {"number": 10**30}
    vector = text_row("blue").astype(np.float32)
    rows = [Row(f"p{i}", vector, path=path, metadata=big) for i, path in enumerate(paths)]
    LanceStore(folder, DIM, create=True).upsert(rows)
    Manifest(dim=DIM, model=MODEL, modalities=("image",), roots=("/",)).save(folder)
    with TestClient(create_app(build_service(replace(settings, index=str(folder))))) as client:
        reply = client.post("/v1/search", json={"query": "blue", "thumbnails": True})
    assert reply.status_code == 200, reply.text
    hits = reply.json()["data"]
    assert [hit["thumbnail"] is not None for hit in hits] == [i == 2 for i in range(7)]
    problems = [hit["thumbnail_problem"] for hit in hits]
    assert problems[0] == problems[1] == OUTSIDE
    words = ("named pipe", "bytes", "No such file", "no picture")
    assert all(word in problem for word, problem in zip(words, problems[3:], strict=True))
    assert str(tmp_path) not in reply.text
    assert hits[0]["metadata"] == {"number": str(10**30)}


def test_a_blocked_search_shows_ends_and_is_replaced(searching: TestClient) -> None:
    processes = [one._process for one in searching.app.state.service.searcher._processes]
    assert searching.get("/readyz").json()["lanes"]["search"] is not None
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    value, began = {"query": "blue", "k": 1}, time.monotonic()
    asked = ThreadPoolExecutor(2)
    late = [
        asked.submit(searching.post, "/v1/search", json=value, headers={"X-Deadline": "4"})
        for _ in range(2)
    ]
    while searching.get("/readyz").status_code == 200:
        assert time.monotonic() - began < 20
        time.sleep(0.1)
    assert [one.result().status_code for one in late] == [504, 504]
    while (reply := searching.post("/v1/search", json=value)).status_code != 200:
        assert reply.status_code in (503, 504) and time.monotonic() - began < 120
    assert all(process.wait(20) == -signal.SIGKILL for process in processes)
    while searching.get("/readyz").status_code != 200:
        assert time.monotonic() - began < 120
        time.sleep(0.1)


def test_a_searching_process_that_dies_is_replaced(searching: TestClient) -> None:
    for one in searching.app.state.service.searcher._processes:
        one._process.kill()
        one._process.wait()
    began = time.monotonic()
    while (reply := searching.post("/v1/search", json={"query": "blue"})).status_code != 200:
        assert reply.status_code == 504 and time.monotonic() - began < 120  # a busy machine


def test_what_json_readers_do_not_take_becomes_text() -> None:
    value = {"a": [10**30, -(2**63), 2**64 - 1, -(2**63) - 1], "\ud800": "\udfff", "b": True}
    expected = {"a": [str(10**30), -(2**63), 2**64 - 1, str(-(2**63) - 1)], "b": True}
    assert sendable(value) == {**expected, "\\ud800": "\\udfff"}


def test_filters_within_limits_and_answers_of_few_words(searching: TestClient) -> None:
    for where in (
        " or ".join(f"text like '%x{i}%'" for i in range(8000)),
        f"split in ({','.join(repr(f'x{i}') for i in range(50_000))})",
        "y" * 50_000 + " = 1",
        "not " * 10_000,
    ):
        reply = searching.post("/v1/search", json={"query": "blue", "where": where})
        assert reply.status_code == 400
        assert len(reply.content) < 800
    where = " or ".join(f"split = 'x{i}'" for i in range(1000)) + " or split = 'test'"
    reply = searching.post("/v1/search", json={"query": "blue", "where": where})
    assert len(reply.json()["data"]) == 6


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
from plait.serving.base.settings import Settings
from plait.serving.process.worker import build_service, load_libraries
settings = Settings.from_json({replace(settings, index=str(index)).to_json()!r})
load_libraries(settings)
build_service(settings)
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"


def test_no_answer_repeats_what_was_sent(searching: TestClient) -> None:
    long = "abc" * 100_000
    part = {"type": long, "text": "a"}
    replies = [
        searching.post("/v1/search", json={"query": "a", "where": f"{long} = 1"}),
        searching.post("/v1/search", json={"query": "a", "find": long}),
        searching.post("/v1/search", json={"query": "a", long: 1}),
        searching.post("/v1/search", json={"query": part}),
        searching.post("/v1/search", json={"query": {"type": "text", "text": "a", long: 1}}),
        searching.post("/v1/embeddings", json={"input": [part, part], long: long}),
        searching.post("/v1/embeddings", json={"input": "a", "model": long}),
        searching.post("/v1/embeddings", json={"input": "a", "encoding_format": long}),
        searching.post("/v1/embeddings", json={"input": f"data:image/png;{long};base64,AAAA"}),
        searching.post("/v1/embeddings", data={"input": "a", long: "a"}, files={long: b"a"}),
        searching.post("/v1/embeddings", content=b"{}", headers={"Content-Type": long[:20_000]}),
        searching.post(f"/v1/{long[:20_000]}"),
    ]
    for number, reply in enumerate(replies):
        assert 400 <= reply.status_code < 500, number
        assert len(reply.content) < 1000, (number, reply.text[:2000])
        assert "abc" * 67 not in reply.text, (number, reply.text)
