"""The parent of the worker: holds the listening socket, and replaces a worker that died.

Connections that come while there is no worker wait in the socket's backlog. The parent loads no
model and parses no request, so whatever kills a worker leaves it standing.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plait.core.errors import PlaitError, UserError
from plait.serving.settings import Settings

BACKLOG = 1024
HANG_SECONDS = 60.0  # without a heartbeat after which a worker is replaced
_BEATS = 1 << 12
_QUICK = 5.0  # a worker that lived shorter counts as one that fails to start
_LONGEST_PAUSE = 30.0


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
        log_level: of the worker.
        tell: is told what happens, for people.
        environ: added to the worker's environment.
    """

    settings: Settings
    keys: Mapping[str, str]
    listening: socket.socket
    log_level: str = "info"
    tell: Callable[[str], None] = lambda line: None
    environ: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
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
            for end in self._wake:
                os.close(end)
            self.listening.close()

    def _asked(self, number: int, frame: Any) -> None:
        self._stopping = True

    def _keep_one(self) -> None:
        pause, has_served = 0.0, False
        while not self._stopping:
            began = time.monotonic()
            beats = self._start()
            try:
                served = self._attend(beats, first=not has_served)
            finally:
                os.close(beats)
            if self._stopping:
                return
            assert self.process is not None
            code = self._end()
            if not has_served and not served:
                raise self._failure(code)
            has_served = True
            lived = time.monotonic() - began
            pause = min(_LONGEST_PAUSE, max(0.5, 2 * pause)) if lived < _QUICK else 0.0
            self.restarts += 1
            self.tell(f"the worker ended ({_cause(code)}): restart {self.restarts} in {pause:g} s")
            self._sleep(pause)

    def _start(self) -> int:
        """Starts a worker; returns the end of the pipe where its heartbeats arrive."""
        reading, writing = os.pipe()
        start = {
            "settings": self.settings.to_json(),
            "listening": self.listening.fileno(),
            "beats": writing,
            "log_level": self.log_level,
            "restarts": self.restarts,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "plait.serving.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self.listening.fileno(), writing),
            start_new_session=True,  # Ctrl-C reaches the parent alone, which asks the worker
            env={**os.environ, **self.environ},
        )
        os.close(writing)
        assert self.process.stdin is not None
        lines = f"{json.dumps(start)}\n{json.dumps(dict(self.keys))}\n"
        try:
            self.process.stdin.write(lines.encode())
            self.process.stdin.flush()
        except BrokenPipeError:  # it died at once: its exit code tells
            pass
        return reading

    def _attend(self, beats: int, *, first: bool) -> bool:
        """Until the worker ends or a stop is asked for; whether it ever was ready."""
        from plait.serving.worker import READY

        served, last = False, time.monotonic()
        while not self._stopping:
            readable, _, _ = select.select([beats, self._wake[0]], [], [], 1.0)
            if self._wake[0] in readable:
                os.read(self._wake[0], _BEATS)
            if beats in readable:
                block = os.read(beats, _BEATS)
                if not block:
                    return served
                last = time.monotonic()
                if READY in block and not served:
                    served = True
                    self.tell(f"serving at {address(self.listening)}" if first else "serving again")
            if served and time.monotonic() - last > HANG_SECONDS:
                self.tell("the worker hangs: it is replaced")
                self._kill()
                return True
        return served

    def _end(self) -> int:
        """Asks the worker to stop, waits for its last answers; its exit code."""
        process = self.process
        if process is None:
            return 0
        if process.poll() is None and self._stopping:
            process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(self.settings.limits.deadline + 15)
        except subprocess.TimeoutExpired:
            self._kill()
            code = process.wait()
        self._output = b"" if process.stdout is None else process.stdout.read()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        self.process = None
        return code

    def _kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def _sleep(self, seconds: float) -> None:
        """Cut short by a signal."""
        if seconds and select.select([self._wake[0]], [], [], seconds)[0]:
            os.read(self._wake[0], _BEATS)

    def _failure(self, code: int) -> PlaitError:
        """Why the first worker could not start."""
        try:
            message = json.loads(self._output.splitlines()[-1])["message"]
        except (IndexError, ValueError, KeyError):
            return WorkerFailed(f"the worker could not start ({_cause(code)}); its log says why")
        return WorkerRefused(message) if code == UserError.exit_code else WorkerFailed(message)


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
