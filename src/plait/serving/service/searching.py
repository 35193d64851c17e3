"""Search of a served index in processes of its own, which can be killed.

A search runs the store's planner over a filter that a client wrote, and reads pictures that rows
name: what hangs, crashes or eats memory there takes a searching process with it, never the worker.
A search that is late ends by itself (`Job.seconds`); one that does not is killed with its process,
and another process takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from plait.core.allocator import without_tuning
from plait.core.errors import PlaitError, UserError
from plait.serving.base.errors import RequestError, late, overloaded
from plait.serving.base.settings import Limits
from plait.serving.service import search_process
from plait.serving.service.search_process import OUTSIDE, Columns, Job, Place, Probe, Search, Show

if TYPE_CHECKING:
    from plait.retrieval.store.columns import Column

log = logging.getLogger(__name__)

PROCESSES = 2
GRACE = 1.0  # seconds after its deadline in which a search must have ended by itself
BUSY_SECONDS = 2.0  # after which a process that has not answered counts as blocked
OPENING_SECONDS = 120.0  # to import libraries and open the index
_SMOOTHING = 0.2  # weight of the latest search in their mean time


class Searcher:
    """Searches one index in processes of its own.

    Args:
        place: of the index.
        model: the name of the served model that made it.
        limits: of waiting.
        wait: until the index is open, so that what is wrong with it is told now.

    Raises:
        UserError: the index cannot be opened.
    """

    def __init__(self, place: Place, model: str, limits: Limits, *, wait: bool = True) -> None:
        self.model, self._limits = model, limits
        self._processes = [_Process(place) for _ in range(PROCESSES)]
        self._free, self._choosing = list(self._processes), threading.Lock()
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="search")
        self._pending, self._mean, self._done = 0, 0.0, 0.0
        if wait:
            self._await_first(place)

    def _await_first(self, place: Place) -> None:
        try:
            if self._processes[0].opened(OPENING_SECONDS):
                return
        except _Died:
            pass
        except UserError:
            self.close()
            raise
        self.close()
        raise PlaitError(f"no process could be started to search {place.folder}")

    async def find(
        self,
        like: np.ndarray | str,
        modality: str | None,
        *,
        deadline: float,
        thumbnails: bool = False,
        files: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Hits of a query's vector.

        Args:
            like: the vector, of unit length; or the key of a row, for those like it.
            modality: of the query.
            deadline: on the monotonic clock, after which the search is given up.
            thumbnails: add a small JPEG of each picture, or why there is none.
            files: add name, folder and date of each picture's file, and the key of the row.
            options: ``k``, ``where`` and ``find`` of `plait.retrieval.Index.search`.

        Raises:
            UserError: a filter that does not fit.
            RequestError: 429 when many searches wait, 500 for an index that cannot be read, 503
                when the searching process died, 504 when it was late.
        """
        job = Search(like, modality, thumbnails, files, options)
        hits: list[dict[str, Any]] = await self._queued(job, deadline)
        outside = sum(hit.get("thumbnail_problem") == OUTSIDE for hit in hits)
        if outside:
            log.warning("%d pictures outside the index's folders were not shown", outside)
        return hits

    async def show(self, key: str, *, deadline: float) -> dict[str, Any]:
        """The row of that key as a hit with its file and its picture, large. Raises as `find`."""
        return dict(await self._queued(Show(key), deadline))

    async def columns(self, *, deadline: float) -> list[Column]:
        """What filters can name. Raises as `find`."""
        return list(await self._queued(Columns(), deadline))

    async def _queued(self, job: Job, deadline: float) -> Any:
        wait = self._pending * self._mean / PROCESSES
        if wait > self._limits.queue_seconds:
            raise overloaded(wait, "searches wait")
        self._pending += 1
        began = time.monotonic()
        try:
            answer = await self._run(job, deadline)
        finally:
            self._pending -= 1
        self._mean += _SMOOTHING * (time.monotonic() - began - self._mean)
        return answer

    async def probe(self, seconds: float = BUSY_SECONDS) -> None:
        """A search for nothing, so that `age` tells of now. Raises as `find`."""
        await self._run(Probe(), time.monotonic() + seconds)

    @property
    def age(self) -> float | None:
        """Seconds since the last answer of a searching process; None before the first."""
        return time.monotonic() - self._done if self._done else None

    @property
    def ready(self) -> bool:
        """Whether a process is there to search, or was until a moment ago."""
        now = time.monotonic()
        return any(
            one.is_open and (since is None or now - since < BUSY_SECONDS)
            for one in self._processes
            for since in (one.since,)
        )

    def close(self) -> None:
        """Ends the processes, and with them the searches."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.close()

    async def _run(self, job: Job, deadline: float) -> Any:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, self._ask, job, deadline)
        self._done = time.monotonic()
        return answer

    def _ask(self, job: Job, deadline: float) -> Any:
        with self._choosing:  # as many processes as threads: one is free
            process = next((one for one in self._free if one.is_open), self._free[0])
            self._free.remove(process)
        try:
            return process.ask(job, deadline)
        finally:
            with self._choosing:
                self._free.append(process)


class _Process:
    """A searching process and its successors. Used by one thread at a time.

    Attributes:
        is_open: whether the index is open, as far as was looked.
        since: when it was given what it has not answered yet.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._closed = place, False
        self.since: float | None = None
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", search_process.__name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=without_tuning(os.environ),
            )
        self._pipe = Connection(ours.detach())
        self.is_open, self._started = False, time.monotonic()
        # One that died already shows when its answer is awaited.
        with contextlib.suppress(OSError):
            self._pipe.send(self._place)

    def opened(self, seconds: float) -> bool:
        """Whether the index is open after at most so many seconds.

        Raises:
            UserError: it cannot be opened.
        """
        if not self.is_open and self._pipe.poll(max(0.0, seconds)):
            self._take()
            self.is_open = True
        return self.is_open

    def ask(self, job: Job, deadline: float) -> Any:
        """What the process answers; it is killed when it does not, and replaced."""
        self.since = time.monotonic()
        try:
            if self._process.poll() is not None:
                self._replace()
            if not self.opened(deadline - time.monotonic()):
                if time.monotonic() - self._started > OPENING_SECONDS:
                    self._replace()
                raise late()
            return self._answer_of(job, deadline)
        except _Died as death:
            if self._closed:
                raise late() from death
            self._replace()
            if time.monotonic() > deadline:
                log.warning("a search did not end: its process was replaced")
                raise late() from death
            log.error("a searching process died and was replaced")
            raise RequestError(503, "the search failed: try again", code="search_failed") from death
        finally:
            self.since = None

    def _answer_of(self, job: Job, deadline: float) -> Any:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise late()
        killer = threading.Timer(seconds + GRACE, self._process.kill)
        killer.daemon = True
        killer.start()
        try:
            self._pipe.send(replace(job, seconds=seconds))
            return self._take()
        except OSError as error:
            raise _Died from error
        finally:
            killer.cancel()

    def _take(self) -> Any:
        try:
            how, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise _Died from error
        if how == "unfit":
            raise UserError(value)
        if how == "late":
            raise late()
        if how == "unreadable":
            log.error("%s", value)
            raise RequestError(500, "the index cannot be read; the log says why", code="index")
        return value

    def _replace(self) -> None:
        self._end()
        if not self._closed:
            self._start()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def close(self) -> None:
        """Ends the process for good."""
        self._closed = True
        self._process.kill()  # whoever waits for its answer now sees its end
        self._process.wait()


class _Died(Exception):
    """The process is gone."""
