"""Who may call: API keys, names of a server on this machine, web pages of known origins.

Whoever guesses keys is made to wait; a right key always passes, from wherever it comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from plait.core.errors import UserError, shown
from plait.serving.base.connections import client_of
from plait.serving.base.errors import RequestError
from plait.serving.http.origins import check_origin, host_of

VARIABLE = "PLAIT_API_KEYS"
LEAST_LENGTH = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/healthz", "/readyz")  # probes of an orchestrator carry no key

_LOOKED_AT = frozenset(  # a request may have a hundred headers, and each look goes through all
    {b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"authorization"}
)
_FREE_TRIES = 5  # wrong keys of one client before it has to wait
_LONGEST_WAIT = 64.0  # seconds that a client is told to wait
_LONGEST_DELAY = 2.0  # seconds by which an answer to a wrong key is held back
_DELAYED = 64  # answers held back at once, of all clients
_FORGOTTEN = 900.0  # seconds after the last wrong key
_REMEMBERED = 4096  # clients


class Keys:
    """API keys, kept as hashes only.

    Args:
        keys: by a name for the log.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._hashes = {name: _hash(key) for name, key in keys.items()}

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def holder(self, key: str) -> str | None:
        """The name of a key, or None; takes as long for a wrong key as for a right one."""
        wanted, found = _hash(key), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(known, wanted):
                found = name
        return found


def read_keys(file: Path | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Keys by name: from a file, a line each (``name:key`` or ``key``), or from PLAIT_API_KEYS.

    Raises:
        UserError: the file cannot be read, holds no key, or one that is short.
    """
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the API keys in {file} cannot be read: {error}") from error
        found = [line.strip() for line in lines]
        found = [line for line in found if line and not line.startswith("#")]
        where = str(file)
        if not found:
            raise UserError(f"{file} holds no API key: write one a line, name:key")
    else:
        found = [entry.strip() for entry in environ.get(VARIABLE, "").split(",") if entry.strip()]
        where = f"the variable {VARIABLE}"
    keys: dict[str, str] = {}
    for number, entry in enumerate(found, 1):
        name, _, key = entry.rpartition(":")
        if len(key) < LEAST_LENGTH:
            raise UserError(
                f"key {number} of {where} has {len(key)} characters: at least {LEAST_LENGTH}, "
                "e.g. from `openssl rand -hex 32`"
            )
        name = name or f"key-{number}"
        if name in keys:
            raise UserError(f"{where} has two keys with the name {name!r}")
        keys[name] = key
    return keys


class Guesses:
    """Counts the wrong keys of each client that sent one lately.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()  # the latest is last
        self._delayed = 0

    def __len__(self) -> int:
        return len(self._tries)

    def wrong(self, address: str) -> float:
        """Notes a wrong key of an address; the seconds that its client must wait, 0 at first."""
        now, client = self._clock(), client_of(address)
        tries, last = self._tries.pop(client, (0, now))
        tries = 1 if now - last > _FORGOTTEN else tries + 1
        self._tries[client] = tries, now
        if len(self._tries) > _REMEMBERED:
            self._tries.popitem(last=False)
        return min(_LONGEST_WAIT, 2.0 ** min(tries - _FREE_TRIES - 1, 30)) * (tries > _FREE_TRIES)

    async def hold_back(self, seconds: float) -> None:
        """Delays an answer: where many are delayed already, not at all."""
        if seconds and self._delayed < _DELAYED:
            self._delayed += 1
            try:
                await asyncio.sleep(min(seconds / 4, _LONGEST_DELAY))
            finally:
                self._delayed -= 1


class Gate:
    """Lets requests pass that carry a key, name a host of this server, and come from no other site.

    Args:
        app: behind the gate.
        keys: none: nobody is asked for one.
        hosts: names that the ``Host`` header may carry; None for any.
        origins: whose pages may call, beside those of the server itself.
        free: paths below which no key is asked for (those of the page).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        hosts: Sequence[str] | None,
        free: Callable[[str], bool],
        origins: Sequence[str] = (),
    ) -> None:
        self.app, self.keys, self.free = app, keys, free
        self.origins, self.guesses = frozenset(origins), Guesses()
        self.hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(raw=[one for one in scope["headers"] if one[0] in _LOOKED_AT])
        try:
            self._check_host(headers)
            check_origin(scope.get("method", "GET"), headers, self.origins)
            if self.keys and scope["path"] not in OPEN and not self.free(scope["path"]):
                client = scope.get("client") or ("", 0)
                scope.setdefault("state", {})["key"] = await self._holder(headers, client[0])
        except RequestError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        name = host_of(headers)
        if self.hosts is not None and name not in self.hosts:
            raise RequestError(
                403,
                f"this server does not go by the name {shown(name)}: start it with --hostname NAME",
                code="unknown_host",
            )

    async def _holder(self, headers: Headers, address: str) -> str:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        holder = self.keys.holder(key)
        if holder is not None:
            return holder
        if key:  # without one, nothing was guessed
            wait = self.guesses.wrong(address)
            await self.guesses.hold_back(wait)
            if wait:
                raise RequestError(
                    429,
                    f"too many wrong API keys came from {shown(address)}: try again in {wait:g} s",
                    code="wrong_keys",
                    headers={"Retry-After": f"{wait:.0f}"},
                )
        raise RequestError(
            401,
            "an API key is needed: Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
