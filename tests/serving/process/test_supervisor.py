"""The parent's part, with children that do not serve."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest

from plait.core.errors import UserError
from plait.serving.base.settings import Settings
from plait.serving.process import pulse as pulses
from plait.serving.process.pulse import Pulse
from plait.serving.process.supervisor import (
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
def child(code: str = "import time; time.sleep(60)") -> Iterator[tuple[Child, int]]:
    """A process (that sleeps), and the end of the pipe where its heartbeats would go in."""
    beats, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    made = Child(process, beats)
    try:
        yield made, writing
    finally:
        assert process.stdout is not None
        if not process.stdout.closed:  # the test did not end it
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


class Time:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def looked(pulse: Pulse, clock: Time, seconds: float) -> str | None:
    """The first fault within so many seconds of looking twice a second."""
    for _ in range(int(2 * seconds)):
        clock.now += 0.5
        if (fault := pulse.fault()) is not None:
            return fault
    return None


def test_a_worker_that_is_silent_hangs_once_it_served() -> None:
    with child() as (worker, _):
        clock = Time()
        pulse = Pulse(worker.process.pid, clock)
        assert looked(pulse, clock, 1000) is None  # it may be loading
        pulse.beat()
        pulse.served = True
        for _ in range(100):
            assert looked(pulse, clock, 9) is None
            pulse.beat()
        began = clock.now
        assert looked(pulse, clock, 30) == "hangs"
        assert clock.now - began < 12


def test_a_silence_in_which_the_parent_did_not_run_counts_for_nothing() -> None:
    with child() as (worker, _):
        clock = Time()
        pulse = Pulse(worker.process.pid, clock)
        pulse.served = True
        clock.now += 3600  # the parent was stopped, or had no processor
        assert looked(pulse, clock, 9) is None
        assert looked(pulse, clock, 3) == "hangs"


def test_a_worker_that_is_read_back_from_swap_has_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = iter(range(1000))
    monkeypatch.setattr(pulses, "major_faults", lambda pid: next(faults))
    clock = Time()
    pulse = Pulse(os.getpid(), clock)
    pulse.served = True
    assert looked(pulse, clock, 50) is None
    assert looked(pulse, clock, 15) == "hangs"


def test_major_faults_are_those_of_the_system() -> None:
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    assert pulses.major_faults(os.getpid()) >= counted
    assert pulses.major_faults(os.getpid()) <= counted + 100
    assert pulses.major_faults(2**22 + 1) == 0


def test_a_stopped_worker_is_replaced_whether_or_not_it_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulses, "STOPPED_SECONDS", 0.3)
    for served in (True, False):
        with parent() as (made, told), child() as (worker, writing):
            if served:
                os.write(writing, READY)
            worker.process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            assert made._attend(worker, first=True) is served
            assert time.monotonic() - began < 3
            assert worker.process.wait(5) == -signal.SIGKILL
        assert "was stopped by a signal" in told[-1]


def test_a_worker_that_goes_on_soon_is_not_replaced() -> None:
    with child() as (worker, _):
        clock = Time()
        pulse = Pulse(worker.process.pid, clock)
        for _ in range(3):
            worker.process.send_signal(signal.SIGSTOP)
            until(lambda: pulses.is_stopped(worker.process.pid))
            assert looked(pulse, clock, 1) is None
            worker.process.send_signal(signal.SIGCONT)
            until(lambda: not pulses.is_stopped(worker.process.pid))
            assert looked(pulse, clock, 30) is None


def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def test_a_stopped_worker_ends_when_the_server_is_asked_to() -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    with parent() as (made, _), child(code) as (worker, _):
        assert worker.process.stdout is not None
        assert worker.process.stdout.readline() == b"up\n"
        worker.process.send_signal(signal.SIGSTOP)
        made.process = worker
        began = time.monotonic()
        assert made._end() == (7, b"")
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("apart", [False, True])
def test_what_a_worker_left_behind_is_ended_and_not_waited_for(apart: bool) -> None:
    sleeping = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    code = (
        "import subprocess, sys\n"
        f"print(subprocess.Popen({sleeping}, start_new_session={apart}).pid)"
    )
    with parent(), child(code) as (worker, _):
        began = time.monotonic()
        exit_code, output = worker.ended(30.0)
        assert (exit_code, time.monotonic() - began < 20) == (0, True)
        left = int(output)
        if apart:  # out of reach, and it holds the worker's output open
            os.kill(left, signal.SIGKILL)
        until(lambda: zombie(left))


def zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_restarts_wait_only_when_workers_die_in_a_row_without_serving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives = iter([True] * 5 + [False] * 7 + [True, True, False])
    with parent() as (made, _):
        pauses: list[float] = []

        def attend(worker: object, *, first: bool) -> bool:
            return next(lives)

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            made._stopping = len(pauses) == 15

        monkeypatch.setattr(made, "_next", lambda: SimpleNamespace(tell=lambda value: None))
        monkeypatch.setattr(made, "_attend", attend)
        monkeypatch.setattr(made, "_end", lambda: (-signal.SIGKILL, b""))
        monkeypatch.setattr(made, "_sleep", sleep)
        made._keep_one()
    assert pauses == [0.0] * 6 + [0.5, 1.0, 2.0, 4.0, 4.0, 4.0] + [0.0] * 3


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
