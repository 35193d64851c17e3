"""How many connections there may be, of one client and in all, and which of them must go.

Where there is no room for a new one, the connection that has waited longest for its client goes: a
silent one before one whose body is on its way, and of the client that has most of them.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

from plait.serving.base.errors import RequestError, overloaded
from plait.serving.base.settings import Limits

RESERVE = 64  # descriptors for files, pipes and connections to others
_LEAST = 8  # connections, however few descriptors there are
_NETWORK = 64  # bits of an IPv6 address that a client cannot choose


@runtime_checkable
class Connection(Protocol):
    """What a `Guard` asks of a connection."""

    def leave(self, reason: str) -> None:
        """Closes it at once."""

    def tend(self, now: float) -> int:
        """Ends what takes too long; bytes that its client has not taken yet."""


@lru_cache(4096)
def client_of(address: str) -> str:
    """The client behind an address: an IPv6 network is one, since it has addresses at will."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if known.version == 4:
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((known, _NETWORK), strict=False))


def room_for_connections() -> int:
    """How many more descriptors the system lets this process have, less a reserve."""
    if find_spec("resource") is None:  # not on Windows
        return 1 << 16
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return 1 << 16
    return max(_LEAST, most - sum(1 for _ in Path("/dev/fd").iterdir()) - RESERVE)


class Client:
    """The connections of one client.

    Attributes:
        count: of all.
        idle: those without a request, by how long they have been so.
        sending: those whose body is on its way, likewise.
    """

    def __init__(self) -> None:
        self.count = 0
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.sending: OrderedDict[Connection, None] = OrderedDict()

    @property
    def spare(self) -> int:
        """How many of them can go."""
        return len(self.idle) or len(self.sending)


class Guard:
    """Knows every connection of a server.

    Args:
        limits: see there.
        proxies: addresses whose connections are those of many clients.
        refused: told, in one word, why a connection ended or was not taken.
        most: connections in all; by default what limits and descriptors allow.
        tick: seconds between two looks at the connections.
        shed: the answer to a whole POST, by its path, body and client, that is refused unread.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        proxies: Sequence[str] = (),
        refused: Callable[[str], None] = lambda reason: None,
        most: int | None = None,
        tick: float = 1.0,
        shed: Callable[[str, bytes, str], RequestError | None] = lambda path, body, client: None,
    ) -> None:
        self.limits, self.refused, self.tick, self.shed = limits, refused, tick, shed
        self.most = min(limits.connections, most or room_for_connections())
        self.most_of_one = max(1, int(min(1.0, limits.client_share) * self.most))
        self._proxies = {client_of(address) for address in proxies}
        self._clients: dict[str, Client] = {}
        self._all: dict[Connection, Client] = {}
        self._names: dict[Connection, str] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def arrived(self, connection: Connection, address: str) -> RequestError | None:
        """Counts a connection; the answer to it if there is no room for it."""
        name = client_of(address)
        client = self._clients.setdefault(name, Client())
        full = client.count >= self.most_of_one and name not in self._proxies
        error = None
        if full and not self._make_room(client):
            error = overloaded(1.0, "this client has too many connections")
        elif len(self._all) >= self.most and not self._make_room(
            max(self._clients.values(), key=lambda one: (one.spare, one.count))
        ):
            error = overloaded(1.0, "there are too many connections")
        client = self._clients.setdefault(name, client)  # it may have lost its last connection
        client.count += 1
        self._all[connection], self._names[connection] = client, name
        client.idle[connection] = None
        if error is not None:
            self.refused("connections")
            del client.idle[connection]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.tick, self._look)
        return error

    def _make_room(self, client: Client) -> bool:
        for waiting in (client.idle, client.sending):
            if waiting:
                self.gone(oldest := next(iter(waiting)))
                oldest.leave("connections")
                return True
        return False

    def gone(self, connection: Connection) -> None:
        """Forgets a connection."""
        client = self._all.pop(connection, None)
        if client is None:
            return
        name = self._names.pop(connection)
        client.idle.pop(connection, None)
        client.sending.pop(connection, None)
        client.count -= 1
        if not client.count:
            del self._clients[name]

    def busy(self, connection: Connection, *, sending: bool) -> None:
        """It has a request, whose body is there or, with ``sending``, on its way."""
        client = self._all.get(connection)
        if client is not None:
            client.idle.pop(connection, None)
            if sending:
                client.sending[connection] = None
            else:
                client.sending.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """Its last request is answered."""
        client = self._all.get(connection)
        if client is not None:
            client.idle[connection] = None

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        unsent = {connection: connection.tend(now) for connection in list(self._all)}
        total = sum(unsent.values())
        if total > self.limits.inflight_bytes:
            for connection in sorted(unsent, key=lambda one: -unsent[one]):
                connection.leave("slow_reader")
                total -= unsent[connection]
                if total <= self.limits.inflight_bytes:
                    break
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.tick, self._look) if self._all else None
