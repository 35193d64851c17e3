"""The parent of the worker: holds the listening socket, and replaces a worker that died.

Connections that come while there is no worker wait in the socket's backlog. The parent loads no
model and parses no request, so whatever kills a worker leaves it standing. A spare process that has
its libraries loaded waits to become the next worker, which then only has to load the models.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from plait.core.allocator import for_serving
from plait.core.errors import PlaitError, UserError
from plait.serving.base.settings import PAGE, Settings
from plait.serving.process.pulse import Pulse

BACKLOG = 4096  # connections that wait while there is no worker; the system may allow fewer
READY, BEAT = b"R", b"."  # what a worker writes to its pipe: once, and every second
_BEATS = 1 << 12
_LOOK = 0.5  # seconds between two looks at the worker
_PAUSES = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0)  # before a restart, by how many in a row never served


class WorkerFailed(PlaitError):
    """A worker that could not start."""


class WorkerRefused(UserError):
    """A worker that could not start, because what it was given is at fault."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UserError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot serve at {host}, port {port}: {error}") from error


def address(listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass
class Supervisor:
    """Runs a worker until told to stop.

    Args:
        settings: of the server.
        keys: API keys by name.
        listening: the socket.
        tower_key: of the servers that run towers.
        log_level: of the worker.
        tell: is told what happens, for people.
        spare: keep a process waiting that can become the next worker.
        restarts: how often a worker was replaced so far.
        process: the worker.
        waiting: the spare process.
    """

    settings: Settings
    keys: Mapping[str, str]
    listening: socket.socket
    tower_key: str | None = None
    log_level: str = "info"
    tell: Callable[[str], None] = lambda line: None
    spare: bool = True
    restarts: int = 0
    process: Child | None = None
    waiting: Child | None = None
    _stopping: bool = False
    _wake: tuple[int, int] = (-1, -1)

    def run(self) -> None:
        """Returns after a stop by SIGTERM or SIGINT, when every accepted request is answered.

        Raises:
            WorkerRefused, WorkerFailed: the first worker could not start.
        """
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        before = signal.set_wakeup_fd(self._wake[1])
        handlers = {sig: signal.signal(sig, self._asked) for sig in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._keep_one()
        finally:
            signal.set_wakeup_fd(before)
            for sig, handler in handlers.items():
                signal.signal(sig, handler)
            self._end()
            if self.waiting is not None:
                self.waiting.discard()
            for end in self._wake:
                os.close(end)
            self.listening.close()

    def _asked(self, number: int, frame: Any) -> None:
        self._stopping = True

    def _keep_one(self) -> None:
        failed, has_served = 0, False
        while not self._stopping:
            try:
                self.process = self._next()
            except OSError as error:
                if not has_served:
                    raise WorkerFailed(f"the worker could not start: {error}") from error
                failed += 1
                pause = _pause(failed)
                self.tell(f"no worker can be started ({error}): again in {pause:g} s")
                self._sleep(pause)
                continue
            self.process.tell({"restarts": self.restarts})
            served = self._attend(self.process, first=not has_served)
            if self._stopping:
                return
            code, output = self._end()
            if not has_served and not served:
                raise failure(code, output)
            has_served = True
            # One that served is replaced at once, however often: its loading is pause enough.
            failed = 0 if served else failed + 1
            pause = _pause(failed)
            self.restarts += 1
            self.tell(f"the worker ended ({_cause(code)}): restart {self.restarts} in {pause:g} s")
            if pause and self.spare and self.waiting is None:
                self.waiting = self._spare()  # it loads its libraries in the pause
            self._sleep(pause)

    def _next(self) -> Child:
        """The spare process, or a new one where there is none, or where it died too."""
        child, self.waiting = self.waiting, None
        if child is not None:
            if child.process.poll() is None:
                return child
            child.discard()
        return self._spawn()

    def _spawn(self) -> Child:
        start = {
            "settings": self.settings.to_json(),
            "listening": self.listening.fileno(),
            "log_level": self.log_level,
            "tower_key": self.tower_key,
        }
        return Child.started(start, dict(self.keys), self.listening.fileno())

    def _spare(self) -> Child | None:
        """A process in waiting; the worker is not given up where there is no room for one."""
        try:
            return self._spawn()
        except OSError as error:
            self.tell(f"no spare process can be started: {error}")
            return None

    def _attend(self, worker: Child, *, first: bool) -> bool:
        """Until the worker ends or a stop is asked for; whether it ever was ready."""
        beats, pulse = worker.beats, Pulse(worker.process.pid)
        while not self._stopping:
            readable, _, _ = select.select([beats, self._wake[0]], [], [], _LOOK)
            if self._wake[0] in readable:
                os.read(self._wake[0], _BEATS)
            if beats in readable:
                block = os.read(beats, _BEATS)
                if not block:
                    break
                pulse.beat()
                if READY in block and not pulse.served:
                    pulse.served = True
                    self.tell(f"serving at {address(self.listening)}" if first else "serving again")
                    if first and self.settings.page:
                        self.tell(f"the page: {address(self.listening)}{PAGE}")
                    if self.spare and self.waiting is None:
                        self.waiting = self._spare()
            elif worker.process.poll() is not None:  # what it started may hold the pipe open
                break
            if (fault := pulse.fault()) is not None:
                self.tell(f"the worker {fault}: it is replaced")
                worker.process.kill()
                break
        return pulse.served

    def _end(self) -> tuple[int, bytes]:
        """Asks the worker to stop, waits for its last answers; its exit code and output."""
        worker, self.process = self.process, None
        if worker is None:
            return 0, b""
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)
            worker.process.send_signal(signal.SIGCONT)  # one that is stopped would not hear it
        return worker.ended(self.settings.limits.deadline + 15)

    def _sleep(self, seconds: float) -> None:
        """Cut short by a signal."""
        if seconds and select.select([self._wake[0]], [], [], seconds)[0]:
            os.read(self._wake[0], _BEATS)


@dataclass
class Child:
    """A process that is the worker, or waits to become it.

    Attributes:
        process: with its standard input and output.
        beats: where its heartbeats arrive.
    """

    process: subprocess.Popen[bytes]
    beats: int

    @classmethod
    def started(cls, start: dict[str, Any], keys: dict[str, str], listening: int) -> Child:
        """Starts a process that loads its libraries and waits for `tell`."""
        beats, writing = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "plait.serving.process.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(listening, writing),
                start_new_session=True,  # Ctrl-C reaches the parent alone, which asks the worker
                # Pictures are resized in several threads already: none of them starts more.
                env={"OPENBLAS_NUM_THREADS": "1", **for_serving(os.environ)},
            )
        except OSError:
            os.close(beats)
            raise
        finally:
            os.close(writing)
        child = cls(process, beats)
        child.tell({**start, "beats": writing})
        child.tell(keys)
        return child

    def tell(self, value: Any) -> None:
        """One line of JSON on its standard input."""
        assert self.process.stdin is not None
        # A process that died meanwhile shows in its exit code.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(value).encode() + b"\n")
            self.process.stdin.flush()

    def ended(self, seconds: float) -> tuple[int, bytes]:
        """Its exit code and output; after so many seconds it is killed."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        code = self.process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it started and left behind
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)  # nothing that lives on is waited for
        output = self.process.stdout.read() or b""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        os.close(self.beats)
        return code, output

    def discard(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.ended(10.0)


def failure(code: int, output: bytes) -> PlaitError:
    """Why the first worker could not start: the last line of its output, if it could say."""
    try:
        message = json.loads(output.splitlines()[-1])["message"]
    except (IndexError, ValueError, KeyError):
        return WorkerFailed(f"the worker could not start ({_cause(code)}); its log says why")
    return WorkerRefused(message) if code == UserError.exit_code else WorkerFailed(message)


def _pause(failed: int) -> float:
    return _PAUSES[min(failed, len(_PAUSES) - 1)]


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
