"""A real server: signals under load, a worker that is killed, broken requests, OpenAI's client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import openai
import psutil
import pytest
from benchmarks._requests import BROKEN, EMBED, data_url
from benchmarks._server import PLAIT, Caller, Running, serving
from fastapi.testclient import TestClient
from tests.serving.conftest import KEY
from tests.serving.made import encoded, image_row, noisy, text_row

from plait.serving.base.settings import Settings
from plait.serving.http.app import create_app
from plait.serving.process.worker import build_service

OPTIONS = ("--engine", "onnxruntime", "--threads", "1", "--limit", "queue_seconds=60")


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Keys, because the client library always sends one."""
    folder = tmp_path_factory.mktemp("server")
    keys = folder / "keys"
    keys.write_text(f"tests:{KEY}\n")
    with serving(bundle, *OPTIONS, "--api-keys", keys, log=folder / "log") as running:
        yield running
    assert running.process.returncode == 0


def caller(server: Running) -> Caller:
    return Caller(server.url, {"Authorization": f"Bearer {KEY}"})


def test_the_official_client(server: Running) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        array = noisy(1)
        texts = ["red", "a blue picture", data_url(encoded(array), "image/png")]
        expected = [text_row("red"), text_row("a blue picture"), image_row(array)]
        answer = client.embeddings.create(model="tiny", input=texts)  # asks for base64
        assert answer.usage.prompt_tokens == 4
        for entry, row in zip(answer.data, expected, strict=True):
            np.testing.assert_allclose(entry.embedding, row, atol=1e-5)
        plain = client.embeddings.create(model="tiny", input="red", encoding_format="float")
        np.testing.assert_allclose(plain.data[0].embedding, text_row("red"), atol=1e-5)
        with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
            client.embeddings.create(model="gpt", input="red")
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="tiny", input=["red", ""])
        assert caught.value.param == "input[1]"
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.embeddings.create(model="tiny", input="red")


def test_every_kind_of_broken_request_fails_alone(server: Running) -> None:
    async def scenario() -> None:
        rng = random.Random(0)
        for name, broken in BROKEN.items():
            one, other = caller(server), caller(server)
            reply, good = await asyncio.gather(
                broken(one, rng), other.post(EMBED, {"input": ["red"]})
            )
            assert good.status == 200, name
            np.testing.assert_allclose(
                good.json["data"][0]["embedding"], text_row("red"), atol=1e-5
            )
            if reply is not None:
                assert 400 <= reply.status < 500, (name, reply)
                assert reply.body, name
            one.close()
            other.close()
        probe = caller(server)
        assert (await probe.get("/readyz")).status == 200
        text = (await probe.get("/metrics")).body.decode()
        assert "plait_pending_inputs 0.0" in text
        assert "plait_held_bytes 0.0" in text
        assert 'status="500"' not in text
        probe.close()

    worker = server.worker
    asyncio.run(scenario())
    assert server.worker == worker
    assert not [line for line in server.lines() if line["level"] == "error"]


def test_a_tower_on_another_server(
    server: Running, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_TOWER_KEY", KEY)
    split = Settings({"tiny": str(bundle)}, engine="onnxruntime", hostnames=("testserver",))
    split = replace(split, towers={"image": server.url})
    array = noisy(3)
    value = {"input": ["red", data_url(encoded(array), "image/png")]}
    with TestClient(create_app(build_service(split))) as front:
        reply = front.post(EMBED, json=value)
        assert reply.status_code == 200, reply.text
        for entry, row in zip(
            reply.json()["data"], [text_row("red"), image_row(array)], strict=True
        ):
            np.testing.assert_allclose(entry["embedding"], row, atol=1e-5)
        assert front.get("/readyz").status_code == 200
    away = replace(split, towers={"image": "http://127.0.0.1:9"})
    with TestClient(create_app(build_service(away))) as front:
        assert front.post(EMBED, json=value).status_code == 502
        assert front.post(EMBED, json={"input": "red"}).status_code == 200
        assert front.get("/readyz").status_code == 503


def test_no_secret_is_where_others_can_read_it(server: Running) -> None:
    assert server.worker is not None
    for process in (psutil.Process(server.process.pid), psutil.Process(server.worker)):
        assert KEY not in " ".join(process.cmdline())
    assert KEY not in server.log.read_text()


def test_a_worker_that_is_killed_comes_back_within_five_seconds(server: Running) -> None:
    worker = server.worker
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    start = time.monotonic()

    async def scenario() -> None:
        while True:
            one = caller(server)
            try:
                # Those that come meanwhile wait in the backlog.
                reply = await asyncio.wait_for(one.post(EMBED, {"input": "red"}), 10)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)
                continue
            finally:
                one.close()
            assert reply.status == 200
            return

    asyncio.run(scenario())
    assert time.monotonic() - start < 5
    assert server.worker not in (None, worker)
    assert server.process.poll() is None


def test_a_stop_under_load_answers_what_was_accepted(server: Running) -> None:
    """The last test with this server."""
    outcomes: list[int | str] = []
    stopped: list[float] = []

    async def ask(number: int) -> None:
        one = caller(server)
        body = {"input": [f"a red picture of the blue {number}"] * 20}
        while not stopped:
            reply = await one.post(EMBED, body)
            outcomes.append(reply.status)
        one.close()

    async def last(number: int) -> None:
        """Sent just before the signal: it is accepted, and must be answered."""
        one = caller(server)
        reply = await one.post(EMBED, {"input": ["the green picture"] * 60})
        outcomes.append(reply.status)
        one.close()

    async def scenario() -> None:
        tasks = [asyncio.create_task(ask(number)) for number in range(6)]
        await asyncio.sleep(0.3)
        late = [asyncio.create_task(last(number)) for number in range(12)]
        await asyncio.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        stopped.append(time.monotonic())
        await asyncio.gather(*tasks, *late)

    asyncio.run(scenario())
    assert server.process.wait(20) == 0
    assert len(outcomes) >= 18  # each of the 6 and of the 12 had at least one answer
    assert set(outcomes) == {200}
    lines = [line for line in server.lines() if line.get("path") == EMBED]
    assert all({"time", "level", "id", "status", "ms", "key"} <= set(line) for line in lines[-12:])


def test_what_cannot_be_served_is_said_in_one_line(bundle: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(bundle, tmp_path / "broken")
    (broken / "text.onnx").unlink()
    with pytest.raises(RuntimeError) as caught, serving(broken, *OPTIONS, log=tmp_path / "log"):
        raise AssertionError("it was served")
    assert "code 2" in str(caught.value)
    assert "text.onnx is missing" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_few_descriptors_and_many_silent_connections(bundle: Path, tmp_path: Path) -> None:
    """The system lets the server have 256 open files, and 400 clients connect and say nothing."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 1024:
        pytest.skip("the test itself needs 1,024 open files")
    few = f"ulimit -n 256; exec {PLAIT} serve {bundle} {' '.join(OPTIONS)} --no-spare"

    async def scenario(url: str) -> None:
        parts = urlsplit(url)
        with contextlib.ExitStack() as silent:
            for _ in range(400):
                address = (parts.hostname or "", parts.port or 0)
                silent.enter_context(socket.create_connection(address, 10))
            for _ in range(5):
                fresh = Caller(url)
                reply = await fresh.post(EMBED, {"input": "red"})
                assert reply.status == 200
                fresh.close()

    with serving(log=tmp_path / "log", command=["bash", "-c", few + " --port 0"]) as running:
        worker = running.worker
        asyncio.run(scenario(running.url))
        assert running.worker == worker
    assert running.process.returncode == 0
