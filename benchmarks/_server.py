"""A `plait serve` of one's own, and a light HTTP client, for what is measured at the server.

The client is plain asyncio: it costs little of the machine that it shares with the server, and it
can send what no library would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PLAIT = Path(sys.executable).with_name("plait")


@dataclass
class Running:
    """A server in a process of its own.

    Attributes:
        url: where it answers.
        process: of the parent.
        log: what the parent and the worker wrote to standard error.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def worker(self) -> int | None:
        """The process id of the worker; None while there is none.

        It is the parent's oldest child: the spare process that is to replace it is younger.
        """
        import psutil

        try:
            children = psutil.Process(self.process.pid).children()
            return min(children, key=lambda child: child.create_time()).pid if children else None
        except psutil.NoSuchProcess:
            return None

    @property
    def memory(self) -> int:
        """Resident bytes of the worker; 0 while there is none."""
        import psutil

        worker = self.worker
        if worker is None:
            return 0
        with contextlib.suppress(psutil.NoSuchProcess):
            return int(psutil.Process(worker).memory_info().rss)
        return 0

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines of JSON."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def stop(self, seconds: float = 60) -> int:
        """Asks it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextlib.contextmanager
def serving(
    *arguments: object,
    log: Path,
    seconds: float = 300,
    environ: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
) -> Iterator[Running]:
    """Runs ``plait serve ARGUMENTS`` on a free port, or ``command``, until the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(command) or [str(PLAIT), "serve", *map(str, arguments), "--port", "0"],
            stderr=file,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **(environ or {})},
        )
    try:
        yield Running(_address(process, log, seconds), process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], log: Path, seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        text = log.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if line.startswith("serving at "):
                return line.removeprefix("serving at ").strip()
        if process.poll() is not None:
            raise RuntimeError(f"plait serve ended with code {process.returncode}:\n{text}")
        time.sleep(0.05)
    raise RuntimeError(f"plait serve was not ready within {seconds:g} s:\n{text}")


async def settled(server: Running) -> None:
    """Waits until a server is idle: its spare process has started too."""
    import psutil

    used = -1.0
    while True:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        times = [process.cpu_times() for process in processes]
        now = sum(one.user + one.system for one in times)
        if now - used < 0.1 and used >= 0:
            return
        used = now
        await asyncio.sleep(2.0)


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Caller:
    """One connection at a time to a server, kept alive between requests.

    Args:
        url: of the server.
        headers: of every request.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The open connection, made anew where there is none."""
        if self._reader is not None and self._reader.at_eof():  # the server closed it, idle
            self.close()
        if self._writer is None or self._writer.is_closing():
            parts = urlsplit(self.url)
            self._reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port)
        assert self._reader is not None
        return self._reader, self._writer

    async def post(self, path: str, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """Posts JSON."""
        return await self.send("POST", path, json.dumps(value).encode(), headers)

    async def get(self, path: str) -> Reply:
        """Gets a path."""
        return await self.send("GET", path)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Sends a request and reads its response.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection broke.
        """
        reader, writer = await self.connect()
        try:
            writer.write(
                head(method, path, self.url, len(body), {**self.headers, **(headers or {})})
            )
            writer.write(body)
            await writer.drain()
            return await self._read(reader)
        except BaseException:
            self.close()
            raise

    async def raw(self, data: bytes) -> Reply:
        """Sends bytes as they are and reads a response."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            await writer.drain()
            return await self._read(reader)
        except BaseException:
            self.close()
            raise

    async def _read(self, reader: asyncio.StreamReader) -> Reply:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        found = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            found[name.strip().lower()] = value.strip()
        if found.get("transfer-encoding") == "chunked":
            body = b"".join([part async for part in _chunks(reader)])
        else:
            body = await reader.readexactly(int(found.get("content-length", 0)))
        if found.get("connection") == "close":
            self.close()
        return Reply(status, found, body)

    def close(self) -> None:
        """Closes the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = self._reader = None


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).strip() or b"0", 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()


def head(method: str, path: str, url: str, length: int | None, headers: Mapping[str, str]) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    if length is not None and (length or method == "POST"):
        lines.append(f"Content-Length: {length}")
    named = {"Content-Type": "application/json", **headers}
    lines += [f"{name}: {value}" for name, value in named.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed."""
    ordered = sorted(values)
    place = min(len(ordered) - 1, max(0, -(-int(share * 1e6) * len(ordered) // 10**6) - 1))
    return ordered[place]
