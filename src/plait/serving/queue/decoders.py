"""Pictures of requests, decoded where a bad one harms nobody.

Most pictures are plain: their headers prove that decoding takes milliseconds and a few bytes a
pixel. Those are decoded in the thread that prepares them. All others go to processes with limits of
time and memory (see `plait.runtime.decoding`); one that dies costs its own picture, and is replaced.

Shape legend: H, W a picture, h, w the encoder's input.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from plait.core.allocator import without_tuning
from plait.core.errors import DataError, PlaitError
from plait.core.shapes import UInt8
from plait.modalities.image.decode import decode_image
from plait.modalities.image.levels import Levels
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.structure import SAFE_FORMATS, structure_of
from plait.serving.base.settings import MIB, Limits

log = logging.getLogger(__name__)

PLAIN_PIXELS: Final = 4_000_000  # of a plain picture that is decoded in a thread
_PLAIN_SHARE: Final = {"JPEG": 1.0, "PNG": 1.0, "WEBP": 0.25}  # by what a pixel costs
_PIXEL_BYTES: Final = 24  # at most, by measurement: an AVIF with alpha
_SPARE_BYTES: Final = 128 * MIB  # tables, profiles, the file itself several times
_WALL: Final = 3.0  # seconds by the clock for a second of processor time, on a busy machine
_START_SECONDS: Final = 60.0
_RETURNING: Final = {  # what a picture took is given back, not kept for the next
    "MALLOC_MMAP_THRESHOLD_": str(MIB),
    "MALLOC_TRIM_THRESHOLD_": str(MIB),
}
_MODULE: Final = "plait.runtime.decoding"


def processes_work() -> bool:
    """Whether this system can confine a process: Linux."""
    return sys.platform.startswith("linux") and importlib.util.find_spec("resource") is not None


def is_plain(data: bytes, most: int = PLAIN_PIXELS) -> bool:
    """Whether the headers prove that decoding is cheap. Cheap itself."""
    try:
        found = structure_of(data)
    except DataError:
        return True  # it is refused before any decoding
    return found.plain and 0 < found.pixels <= most * _PLAIN_SHARE.get(found.kind or "", 0.0)


def _pixels(data: bytes) -> int:
    """Of a picture, by its header; 0 for one that will be refused."""
    try:
        return structure_of(data).pixels
    except DataError:
        return 0


class Decoders:
    """Decodes pictures; may be called from several threads.

    Args:
        limits: pixels and seconds of a picture.
        processes: whether pictures that are not plain get a process. Default: where the system can.
    """

    def __init__(self, limits: Limits, *, processes: bool | None = None) -> None:
        self.limits = limits
        self.processes = processes_work() if processes is None else processes
        self._nursery: _Nursery | None = None
        self._idle: list[_Decoder] = []
        self._changing = threading.Lock()
        self._closed = False
        self._room = _Room(limits.pixels)

    def start(self) -> None:
        """Starts the process from which decoders are forked, so that the first picture finds it."""
        if self.processes:
            with self._changing:
                self._ready_nursery()
        else:
            log.warning(
                "this system cannot limit the memory and time of a process: pictures are decoded in "
                "the worker itself, where a hostile one may hold a thread for long; lower --limit "
                "pixels where strangers send pictures"
            )

    def close(self) -> None:
        """Ends all processes."""
        with self._changing:
            self._closed = True
            for decoder in self._idle:
                decoder.close()
            self._idle = []
            if self._nursery is not None:
                self._nursery.close()
                self._nursery = None

    def is_quick(self, picture: Any) -> bool:
        """Whether a picture is decoded in the calling thread: a plain one, or pixels already."""
        return not self.processes or isinstance(picture, np.ndarray) or is_plain(picture)

    def picture(
        self, data: Any, name: str = "", levels: Levels | None = None
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A picture of encoded bytes; an array comes back as it is.

        Args:
            data: the bytes.
            name: for messages.
            levels: of a picture of more than 8 bits a value.

        Raises:
            DataError: it cannot be used, or its decoder died of it.
        """
        if isinstance(data, np.ndarray):
            return data
        if self.is_quick(data):
            return decode_image(
                data,
                name=name,
                max_pixels=self.limits.pixels,
                formats=SAFE_FORMATS,
                levels=levels,
            )
        return self._elsewhere(data, name, None, levels)

    def pixels(
        self, data: bytes, preprocess: ImagePreprocess, name: str = ""
    ) -> UInt8[np.ndarray, "3 h w"]:
        """Decodes in a process, and resizes there. Raises as `picture`."""
        return self._elsewhere(data, name, preprocess)

    def _elsewhere(
        self,
        data: bytes,
        name: str,
        preprocess: ImagePreprocess | None,
        levels: Levels | None = None,
    ) -> np.ndarray:
        from plait.runtime.decoding import Job

        seconds = self.limits.picture_seconds
        settings = None if preprocess is None else preprocess.to_json()
        toned = None if levels is None else levels.to_json()
        job = Job(name, self.limits.pixels, seconds, _WALL * seconds, settings, toned)
        try:
            return self._with_a_decoder(job, data)
        except _Died as death:
            if death.in_time:  # perhaps something else killed it: its picture gets another
                with contextlib.suppress(_Died):
                    return self._with_a_decoder(job, data)
            problem = (
                "the picture makes its decoder fail"
                if death.in_time
                else f"decoding the picture takes longer than {seconds:g} s"
            )
            raise DataError(f"{problem}: save it anew as a plain JPEG or PNG", path=name) from death

    def _with_a_decoder(self, job: Any, data: bytes) -> np.ndarray:
        with self._room.held(_pixels(data)):
            return self._by_a_decoder(job, data)

    def _by_a_decoder(self, job: Any, data: bytes) -> np.ndarray:
        decoder = self._taken()
        try:
            array = decoder.decoded(job, data)
        except DataError:
            self._give_back(decoder)
            raise
        except BaseException:
            decoder.close()
            raise
        self._give_back(decoder)
        return array

    def _taken(self) -> _Decoder:
        with self._changing:
            if self._idle:
                return self._idle.pop()
            nursery = self._ready_nursery()
        try:
            return nursery.decoder()
        except (OSError, EOFError):  # it was killed: once more with a new one
            with self._changing:
                if self._nursery is nursery:
                    nursery.close()
                    self._nursery = None
                nursery = self._ready_nursery()
        try:
            return nursery.decoder()
        except (OSError, EOFError) as error:
            raise PlaitError("no process for decoding can be started") from error

    def _give_back(self, decoder: _Decoder) -> None:
        with self._changing:
            if not self._closed:
                self._idle.append(decoder)
                return
        decoder.close()

    def _ready_nursery(self) -> _Nursery:
        if self._closed:
            raise PlaitError("the server is stopping")
        if self._nursery is None:
            self._nursery = _Nursery(_PIXEL_BYTES * self.limits.pixels + _SPARE_BYTES)
        return self._nursery


class _Room:
    """Lets in pictures while they have no more than so many pixels together: that bounds memory."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def held(self, pixels: int) -> Iterator[None]:
        """Room for a picture; one that is larger than all the room has it alone."""
        pixels = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + pixels <= self._most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


class _Nursery:
    """The process that forks decoders, each with so many bytes of memory."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._control, theirs = socket.socketpair()
        self._asking = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # One picture, one core; and no thread that a fork would lose.
                env={
                    **without_tuning(os.environ),
                    **_RETURNING,
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
                },
            )

    def decoder(self) -> _Decoder:
        """A new decoder. Raises OSError or EOFError when the process is gone."""
        from plait.runtime.decoding import receive_pid

        ours, theirs = socket.socketpair()
        ours.settimeout(_START_SECONDS)
        try:
            with theirs, self._asking:
                message = json.dumps({"memory": self.memory}).encode()
                socket.send_fds(self._control, [message], [theirs.fileno()])
            return _Decoder(ours, receive_pid(ours))
        except BaseException:
            ours.close()
            raise

    def close(self) -> None:
        """Ends it, and every decoder that it forked."""
        self._control.close()
        self._process.kill()
        self._process.wait()


class _Died(Exception):
    """A decoder's end.

    Attributes:
        in_time: before its time for the picture was over.
    """

    def __init__(self, seconds: float, limit: float) -> None:
        super().__init__(f"a decoder died after {seconds:.2f} s of a picture")
        self.in_time = seconds < 0.9 * limit
        log.warning("%s", self)


@dataclass(eq=False)
class _Decoder:
    """A process that decodes one picture at a time."""

    connection: socket.socket
    pid: int

    def decoded(self, job: Any, data: bytes) -> np.ndarray:
        """The array of a picture. Raises DataError for the picture, and `_Died`."""
        from plait.runtime.decoding import job_head, receive, send

        began = time.monotonic()
        self.connection.settimeout(job.wall_seconds + 1.0)
        try:
            send(self.connection, job_head(job), data)
            head, body = receive(self.connection)
        except TimeoutError as error:
            # Its end of the socket is open, so the number is still its own.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            raise _Died(time.monotonic() - began, job.seconds) from error
        except (OSError, EOFError) as error:
            raise _Died(time.monotonic() - began, job.seconds) from error
        if "problem" in head:
            raise DataError(head["problem"], path=job.name)
        return np.frombuffer(body, np.uint8).reshape(head["shape"])

    def close(self) -> None:
        """Ends the process: at once when it is idle, at the latest when its job's time is over."""
        self.connection.close()
