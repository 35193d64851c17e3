"""A process in which pictures of strangers are decoded: small, limited, and no loss when it dies.

`python -m plait.runtime.decoding FD` reads from the socket FD: each message brings limits as JSON
and another socket, for which it forks a decoder. So a new decoder costs milliseconds, and shares its
libraries with the others. When FD closes, the process ends, and the decoders with it.

A decoder answers `Job` after job. The kernel ends it when a job takes too long, and refuses it
memory beyond its limit. Linux only; nothing here needs torch.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from PIL import AvifImagePlugin, Image

from plait.core.errors import DataError
from plait.core.shapes import UInt8
from plait.modalities.image.decode import decode_image, decode_lines
from plait.modalities.image.levels import Levels
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.structure import SAFE_FORMATS
from plait.runtime.resize import preprocess_exactly, preprocess_lines

_HEAD: Final = struct.Struct(">LQ")  # bytes of the JSON and of what follows it
_PID: Final = struct.Struct(">L")
_NICE: Final = 10  # what everybody waits for goes before a picture that takes long
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


@dataclass(frozen=True)
class Job:
    """What to make of a picture's file.

    Attributes:
        name: of the picture in messages.
        max_pixels: see `plait.modalities.image.decode.decode_image`.
        seconds: of processor time after which the decoder is ended.
        wall_seconds: the same by the clock.
        preprocess: settings of `ImagePreprocess`; None for the whole picture.
        levels: `plait.modalities.image.levels.Levels` of the whole picture, as JSON.
    """

    name: str
    max_pixels: int
    seconds: float
    wall_seconds: float
    preprocess: Mapping[str, Any] | None = None
    levels: Mapping[str, Any] | None = None


def send(connection: socket.socket, head: Mapping[str, Any], body: bytes | memoryview) -> None:
    """One message: JSON, then bytes."""
    text = json.dumps(head).encode()
    connection.sendall(_HEAD.pack(len(text), len(body)) + text)
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytearray]:
    """The inverse of `send`. Raises EOFError when the other end is gone."""
    text, body = _HEAD.unpack(_exactly(connection, _HEAD.size))
    return json.loads(_exactly(connection, text)), _exactly(connection, body)


def receive_pid(connection: socket.socket) -> int:
    """The first that a new decoder says. Raises EOFError when there is none."""
    (pid,) = _PID.unpack(_exactly(connection, _PID.size))
    return int(pid)


def _exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data


def job_head(job: Job) -> dict[str, Any]:
    """A job as plain data for `send`."""
    return asdict(job)


def decoded(job: Job, data: bytes) -> UInt8[np.ndarray, "..."]:
    """(3, h, w) for an encoder, or the whole picture (H, W, 3).

    Raises:
        DataError: the picture cannot be used, or needs too much memory.
    """
    given: dict[str, Any] = {"name": job.name, "max_pixels": job.max_pixels}
    if job.preprocess is None:
        levels = None if job.levels is None else Levels.from_json(job.levels)
        return decode_image(data, **given, formats=SAFE_FORMATS, levels=levels)
    preprocess = ImagePreprocess.from_json(job.preprocess)
    shape, lines = decode_lines(data, **given, formats=SAFE_FORMATS, levels=preprocess.levels)
    return preprocess_lines(shape, lines, preprocess)


def _serve(connection: socket.socket) -> None:
    """Answers jobs until the other end is gone."""
    connection.sendall(_PID.pack(os.getpid()))
    while True:
        try:
            head, data = receive(connection)
        except EOFError:
            return
        job = Job(**head)
        # Nothing handles these signals: they end the process, whatever native code it is in.
        signal.setitimer(signal.ITIMER_PROF, job.seconds)
        signal.setitimer(signal.ITIMER_REAL, job.wall_seconds)
        try:
            array = np.ascontiguousarray(decoded(job, bytes(data)))
            answer: tuple[dict[str, Any], Any] = {"shape": array.shape}, array.data.cast("B")
        except DataError as error:
            answer = {"problem": error.problem}, b""
        except MemoryError:
            answer = {"problem": "the picture needs more memory than its size allows"}, b""
        del data
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(connection, *answer)


def _confine(memory: int) -> None:
    """Limits this process: so many bytes beside what it has, no file to write, no privilege."""
    import resource  # not on Windows, where nothing starts this process

    os.nice(_NICE)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for limit, value in (
        (resource.RLIMIT_AS, _address_space() + memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(limit)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (value, value))


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  the cheapest way
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _warm_up() -> None:
    """Loads every plugin and table that a decoder needs, once for all of them."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one picture, one core
    Image.init()
    small = ImagePreprocess(size=8)
    for form in ("JPEG", "PNG", "WEBP", "GIF"):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 16)).save(buffer, form)
        preprocess_exactly(decode_image(buffer.getvalue(), name=form), small)
    gc.collect()
    gc.freeze()


def main() -> int:
    """Forks a decoder for every socket that comes, until the other end is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 10, 1)
        if not message:
            return 0
        if os.fork() == 0:
            control.close()
            _confine(json.loads(message)["memory"])
            with socket.socket(fileno=descriptors[0]) as connection:
                _serve(connection)
            os._exit(0)
        os.close(descriptors[0])


if __name__ == "__main__":
    sys.exit(main())
