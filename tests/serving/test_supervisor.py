"""The parent's part, with children that do not serve."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from plait.core.errors import UserError
from plait.serving import supervisor
from plait.serving.settings import Settings
from plait.serving.supervisor import (
    READY,
    Child,
    Supervisor,
    WorkerFailed,
    WorkerRefused,
    address,
    failure,
    listen,
)


@contextmanager
def child() -> Iterator[tuple[Child, int]]:
    """A process that sleeps, and the end of the pipe where its heartbeats would go in."""
    beats, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    made = Child(process, beats)
    try:
        yield made, writing
    finally:
        made.discard()
        os.close(writing)


@contextmanager
def parent() -> Iterator[tuple[Supervisor, list[str]]]:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Supervisor(Settings({}), {}, listening, tell=told.append, spare=False)
        made._wake = os.pipe()
        yield made, told
        for end in made._wake:
            os.close(end)


def test_a_worker_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HANG_SECONDS", 0.2)
    with parent() as (made, told), child() as (worker, writing):
        os.write(writing, READY)
        assert made._attend(worker, first=True)
        assert worker.process.wait(5) == -signal.SIGKILL
    assert told[0].startswith("serving at http://127.0.0.1:")
    assert "hangs" in told[1]


def test_a_worker_that_ends_before_it_was_ready() -> None:
    with parent() as (made, told), child() as (worker, _):
        closed, end = os.pipe()
        os.close(end)
        os.dup2(closed, worker.beats)
        os.close(closed)
        assert not made._attend(worker, first=True)
    assert told == []


def test_why_a_first_worker_could_not_start() -> None:
    refused = failure(2, b'{"type": "ModelError", "message": "the folder holds no model"}\n')
    assert isinstance(refused, WorkerRefused)
    assert (str(refused), refused.exit_code) == ("the folder holds no model", 2)
    assert isinstance(failure(1, b'{"type": "PlaitError", "message": "a fault"}\n'), WorkerFailed)
    killed = failure(-9, b"")
    assert "SIGKILL" in str(killed)
    assert killed.exit_code == 1


def test_addresses() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert address(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(UserError, match="cannot serve at"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError):
        listen("no.such.host.invalid", 0)


def test_a_worker_lives_on_where_there_is_no_room_for_a_spare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> Child:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Child, "started", full)
    with parent() as (made, told):
        assert made._spare() is None
        assert "no spare process" in told[-1]
        with pytest.raises(WorkerFailed, match="could not start"):
            made._keep_one()
