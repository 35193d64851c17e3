"""Pictures from other servers: only from listed hosts, and never from a private address.

Off unless hosts are listed. A name is resolved once, every address that it has is checked, and the
connection goes to the checked address itself, so that a second answer of the name server (DNS
rebinding) changes nothing. Redirects are followed a few times, each checked alike. Size and time
are capped, and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from plait.core.errors import shown
from plait.serving.base.errors import RequestError
from plait.serving.base.inputs import Input, picture
from plait.serving.base.settings import Limits

SECONDS: Final = 5.0
REDIRECTS: Final = 3
_THREADS = 8
_BLOCK = 1 << 16
_PORTS: Final = {"http": 80, "https": 443}

Allows = Callable[[str], bool]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also where it hides in an IPv6 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class Fetcher:
    """Gets pictures by URL.

    Args:
        hosts: that may be asked: ``example.org`` (ports 80 and 443), ``example.org:8080``, or
            ``.example.org`` for every name below it.
        max_bytes: of a picture.
        seconds: in which it must be there, redirects included; what the resolver of names takes
            apart, which cannot be interrupted.
        allows: which addresses may be connected to.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        max_bytes: int,
        seconds: float = SECONDS,
        allows: Allows = is_public,
    ) -> None:
        self.hosts, self.max_bytes = tuple(host.lower() for host in hosts), max_bytes
        self.seconds, self.allows = seconds, allows
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") if hosts else None

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def fetched(self, one: Input, deadline: float, limits: Limits) -> Input:
        """The picture behind a remote input.

        Raises:
            RequestError: 400 when it may not be fetched, cannot be, or is no picture.
        """
        if self._pool is None:
            raise _refused(one.place, "URLs are off on this server: send a data URL instead")
        assert isinstance(one.value, str)
        until = min(deadline, time.monotonic() + self.seconds)
        loop = asyncio.get_running_loop()
        try:
            data = await loop.run_in_executor(self._pool, self.get, one.value, until)
        except Refused as error:
            raise _refused(one.place, str(error)) from error
        return picture(data, one.place, limits)

    def get(self, url: str, until: float) -> bytes:
        """The bytes behind a URL, at the latest ``until`` by the monotonic clock.

        Raises:
            Refused: a host that is not listed, a private address, too large, too slow, or an error.
        """
        for _ in range(REDIRECTS + 1):
            parts, port = self._admitted(url)
            address = self._address(parts.hostname or "", port)
            try:
                found, location = self._ask(parts, port, address, until)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(error) or type(error).__name__
                if time.monotonic() >= until:
                    reason = "it takes too long"
                raise Refused(f"it cannot be fetched: {reason}") from error
            if location is None:
                return found
            url = urljoin(url, location)
        raise Refused(f"it redirects more than {REDIRECTS} times")

    def _admitted(self, url: str) -> tuple[SplitResult, int]:
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise Refused(f"it is no URL: {error}") from error
        if parts.scheme not in _PORTS or not parts.hostname:
            raise Refused("only http and https URLs can be fetched")
        if parts.username is not None or parts.password is not None:
            raise Refused("a URL with a user name is not fetched")
        host = parts.hostname.lower().rstrip(".")
        for entry in self.hosts:
            name, _, wanted = entry.partition(":")
            fits = host == name or (name.startswith(".") and host.endswith(name))
            if fits and (port == int(wanted) if wanted else port == _PORTS[parts.scheme]):
                return parts, port
        raise Refused(f"the host {shown(host)} is not among those that this server may ask")

    def _address(self, host: str, port: int) -> tuple[int, str]:
        """(family, address) to connect to: the first, when all that the name has may be used."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Refused(f"the host {shown(host)} is not known") from error
        addresses = [(int(family), str(where[0])) for family, _, _, _, where in found]
        for _, address in addresses:
            if not self.allows(address):
                raise Refused(f"the host {shown(host)} has a private address")
        return addresses[0]

    def _ask(
        self, parts: SplitResult, port: int, address: tuple[int, str], until: float
    ) -> tuple[bytes, str | None]:
        """(the body, None), or (nothing, where it redirects to)."""
        connection = _Pinned(parts, port, address, until)
        try:
            target = parts.path or "/"
            headers = {"Accept": "image/*", "User-Agent": "plait", "Accept-Encoding": "identity"}
            connection.request(
                "GET", f"{target}?{parts.query}" if parts.query else target, headers=headers
            )
            response = connection.getresponse()
            location = response.headers.get("location")
            if response.status in (301, 302, 303, 307, 308) and location:
                return b"", location
            if response.status != 200:
                raise Refused(f"its server answers with status {response.status}")
            kind = response.headers.get_content_type()
            if not kind.startswith("image/"):
                raise Refused(f"it has the type {kind}, not image/...")
            return self._read(connection, response), None
        finally:
            connection.finish()

    def _read(self, connection: _Pinned, response: http.client.HTTPResponse) -> bytes:
        parts: list[bytes] = []
        total = 0
        while True:
            connection.hurry()
            block = response.read1(_BLOCK)
            if not block:
                connection.left()  # an end that came of the time's being over is none
                return b"".join(parts)
            total += len(block)
            if total > self.max_bytes:
                raise Refused(f"it has more than {self.max_bytes:,} bytes")
            parts.append(block)


class Refused(Exception):
    """A URL that is not fetched; the message says why."""


class _Pinned(http.client.HTTPConnection):
    """A connection to one address, whatever its name resolves to by now."""

    def __init__(
        self, parts: SplitResult, port: int, address: tuple[int, str], until: float
    ) -> None:
        self._until = until
        super().__init__(parts.hostname or "", port, timeout=self.left())
        self._address, self._secure = address, parts.scheme == "https"
        self._socket: socket.socket | None = None  # `sock` is gone once a response will close it
        # Timeouts of a socket are for each read: one byte at a time would outlast them.
        self._clock = threading.Timer(self.left(), self._cut)
        self._clock.daemon = True

    def connect(self) -> None:
        """To the checked address; the certificate must be that of the name."""
        family, address = self._address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.left())
            sock.connect((address, self.port))
            if self._secure:
                context = ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
        self.sock = self._socket = sock
        self._clock.start()

    def finish(self) -> None:
        """Closes it."""
        self._clock.cancel()
        self.close()

    def _cut(self) -> None:
        """Ends whatever waits for the socket."""
        assert self._socket is not None
        with contextlib.suppress(OSError):  # closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def hurry(self) -> None:
        """Shortens the socket's timeout to the time that is left."""
        assert self._socket is not None
        self._socket.settimeout(self.left())

    def left(self) -> float:
        """Seconds. Raises TimeoutError when none are."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("it takes too long")
        return left


def _refused(place: str, reason: str) -> RequestError:
    return RequestError(400, f"{place}: {reason}", param=place, code="image_not_fetched")
